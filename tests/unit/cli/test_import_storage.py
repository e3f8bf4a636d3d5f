# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar import storage``: providers become connections, inputs and outputs places; no secret is shown."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.cli import import_storage
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.provider_storage import connection_id, own_store, storage_connections
from airflow_provider_oscar.hooks.dcache.settings import DCacheSettings
from airflow_provider_oscar.hooks.s3.settings import S3Settings
from airflow_provider_oscar.ingest.new_objects import NewObjects
from tests.support.command_line import parser
from tests.support.oscar_faults import connected_oscar

SECRETS = ("AK-minio", "SK-minio", "AK-s3", "SK-s3", "TOKEN-onedata", "PW-dcache", "RT-rucio")
FDL = """\
functions:
  oscar:
  - here:
      name: grayify
      image: i
      script: nowhere.sh
      input:
      - {storage_provider: minio.default, path: grayify/in}
      - {storage_provider: webdav.dcache, path: data/in dir}
      output:
      - {storage_provider: minio.other, path: grayify/out}
      - {storage_provider: s3.mine, path: bucket/out}
      - {storage_provider: onedata.space, path: out}
      storage_providers:
        minio:
          other: {endpoint: "https://minio.test", verify: false, access_key: AK-minio, secret_key: SK-minio, region: r1}
        s3:
          mine: {access_key: AK-s3, secret_key: SK-s3, region: eu-west-1}
        onedata:
          space: {oneprovider_host: op.test, token: TOKEN-onedata, space: my space}
        webdav:
          dcache: {hostname: "door.test:2880", login: me, password: PW-dcache}
        rucio:
          cern: {host: "https://rucio.test", account: a, refresh_token: RT-rucio, auth_host: "https://auth.test"}
"""


@pytest.fixture
def stored(monkeypatch):
    """What would be stored, instead of Airflow's own command."""
    found = {}
    monkeypatch.setattr(
        "airflow_provider_oscar.cli.stored.store_connections", lambda new, *, overwrite: found.update(new)
    )
    monkeypatch.setattr(import_storage, "store_connections", lambda new, *, overwrite: found.update(new))
    return found


@pytest.fixture
def airflow(stored, capsys):
    def run(*words):
        options = parser().parse_args(["oscar", "import", "storage", *words, "-o", "json"])
        capsys.readouterr()
        options.func(options)
        out, err = capsys.readouterr()
        assert not [secret for secret in (*SECRETS, "pw-own") if secret in out + err]
        return {row["name"]: row for row in json.loads(out)}

    return run


@pytest.fixture
def fdl(tmp_path):
    path = tmp_path / "service.yaml"
    path.write_text(FDL)
    return str(path)


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    with connected_oscar(monkeypatch, tmp_path) as oscar:
        oscar.buckets.store.secret_key = "pw-own"
        yield oscar


def made(stored, name):
    fields = stored[name]
    return Connection(
        conn_id=name,
        conn_type=fields["conn_type"],
        host=fields["host"],
        login=fields["login"],
        password=fields["password"],
        extra=fields["extra"],
    )


def test_every_provider_of_a_file_becomes_a_connection_that_its_hook_reads(airflow, stored, fdl, cluster):
    rows = airflow(fdl)
    assert set(stored) == {"minio_default", "minio_other", "s3_mine", "onedata_space", "webdav_dcache", "rucio_cern"}
    other = S3Settings.from_connection(made(stored, "minio_other"))
    assert (other.endpoint_url, other.region, other.verify) == ("https://minio.test", "r1", False)
    assert (other.access_key, made(stored, "minio_other").password) == ("AK-minio", "SK-minio")
    amazon = S3Settings.from_connection(made(stored, "s3_mine"))
    assert (amazon.endpoint_url, amazon.region, amazon.addressing_style) == ("", "eu-west-1", "auto")
    door = DCacheSettings.from_connection(made(stored, "webdav_dcache"))
    assert (door.webdav_url, door.login, door.auth.value) == ("https://door.test:2880", "me", "basic")
    assert stored["onedata_space"]["password"] == "TOKEN-onedata"
    assert "Onezone" in rows["onedata.space"]["remark"]
    assert "token" in rows["rucio.cern"]["remark"]
    assert rows["minio.default"]["result"] == "stored"


def test_inputs_and_outputs_are_named_as_a_dag_file_takes_them(airflow, fdl, cluster):
    rows = airflow(fdl)
    assert rows["s3://grayify/in/"]["becomes"] == "NewObjects('s3://grayify/in/', conn_id='minio_default')"
    assert rows["dcache://webdav_dcache/data/in%20dir/"]["what"] == "input of grayify"
    assert rows["s3://bucket/out/"]["becomes"] == "Asset('s3://bucket/out/')"
    assert "onedata://onedata_space@my%20space/out/" in rows
    watched = [row["becomes"] for row in rows.values() if row["becomes"].startswith("NewObjects")]
    assert len([eval(each, {"NewObjects": NewObjects}) for each in watched]) == 2


def test_the_users_own_store_is_that_of_the_configuration(airflow, stored, cluster):
    rows = airflow("--prefix", "upv_", "--endpoint", "https://minio.example.org")
    assert rows["minio.default"]["becomes"] == "connection upv_minio_default (oscar_s3)"
    assert (stored["upv_minio_default"]["host"], stored["upv_minio_default"]["password"]) == (
        "https://minio.example.org",
        "pw-own",
    )


def test_a_service_of_the_server_is_read_as_well(airflow, stored, cluster):
    assert airflow("--service", "svc") == {}
    with pytest.raises(SystemExit, match="no service 'nosuch'"):
        airflow("--service", "nosuch")


def test_what_is_there_is_kept_and_a_dry_run_stores_nothing(airflow, stored, fdl, cluster, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_S3_MINE", json.dumps({"conn_type": "aws"}))
    assert airflow(fdl, "--dry-run")["minio.other"]["result"] == "would be stored"
    assert stored == {}
    assert airflow(fdl)["s3.mine"]["result"].startswith("kept as it is")
    assert "s3_mine" not in stored
    assert airflow(fdl, "--overwrite")["s3.mine"]["result"] == "stored"


@pytest.mark.parametrize("config", [{}, {"minio_provider": {"access_key": "hidden", "secret_key": "hidden"}}])
def test_an_account_without_keys_is_told_so(config):
    with pytest.raises(DefinitionError, match="shows no keys of its store"):
        own_store(config)


def test_a_provider_of_another_form_is_refused_without_its_value():
    with pytest.raises(DefinitionError, match=r"storage_providers\.minio\.x is of type str") as refused:
        storage_connections({"minio": {"x": "SK-minio"}})
    assert "SK-minio" not in str(refused.value)


def test_an_address_inside_the_cluster_is_pointed_out():
    config = {"minio_provider": {"endpoint": "http://minio.minio.svc.cluster.local:9000", "access_key": "a"}}
    config["minio_provider"]["secret_key"] = "s"
    assert "--endpoint" in own_store(config).remark


def test_ids_hold_nothing_that_an_asset_uri_cannot():
    assert connection_id("minio.my store/é") == "minio_my_store__"
