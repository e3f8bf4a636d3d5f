# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar services`` and ``jobs`` against the embedded OSCAR, through Airflow's own parser."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import pytest

from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from tests.integration.conftest import PLAIN_IMAGE
from tests.support.command_line import parser

FDL = f"""
functions:
  oscar:
  - any:
      name: by-cli
      image: {PLAIN_IMAGE}
      cpu: "1.0"
      memory: 256Mi
      script: script.sh
"""


@pytest.fixture
def airflow(platform, capsys) -> Callable[..., str]:
    """Run ``airflow oscar …`` and return its standard output."""

    def run(*words: str) -> str:
        options = parser().parse_args(["oscar", *words])
        capsys.readouterr()
        options.func(options)
        return str(capsys.readouterr().out)

    return run


@pytest.fixture
def fdl(tmp_path):
    (tmp_path / "script.sh").write_text('#!/bin/sh\necho by cli; grep -q wait "$INPUT_FILE_PATH" && sleep 300\n')
    (tmp_path / "service.yaml").write_text(FDL)
    return tmp_path / "service.yaml"


def test_service_and_job_from_beginning_to_end(airflow, fdl):
    assert airflow("services", "apply", str(fdl)).startswith("by-cli: ")
    (row,) = (row for row in json.loads(airflow("services", "list", "-o", "json")) if row["name"] == "by-cli")
    assert row["image"] == PLAIN_IMAGE
    assert set(row) == {"name", "image", "cpu", "memory", "interlink_node_name", "owner"}
    assert "by-cli" in airflow("services", "list")

    hook = OscarHook()

    def status(job: str) -> str:
        jobs = json.loads(airflow("jobs", "list", "by-cli", "-o", "json"))
        return next(str(each["status"]) for each in jobs if each["name"] == job)

    def until(job: str, wanted: str) -> None:
        deadline = time.monotonic() + 120
        while status(job) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    hook.run(hook.submit_job("by-cli", encode_body(b"go on"), "by-cli-0"))
    until("by-cli-0", "Succeeded")
    assert "by cli" in airflow("jobs", "logs", "by-cli", "by-cli-0")
    hook.run(hook.submit_job("by-cli", encode_body(b"wait"), "by-cli-1"))
    until("by-cli-1", "Running")
    assert airflow("jobs", "cancel", "by-cli", "by-cli-1") == "by-cli-1: cancelled\n"
    assert airflow("jobs", "cancel", "by-cli", "by-cli-0") == "by-cli-0: cancelled\n"
    assert json.loads(airflow("jobs", "list", "by-cli", "-o", "json")) == []
    assert airflow("jobs", "cancel", "by-cli", "by-cli-1") == "by-cli-1: there is no such job\n"

    assert airflow("services", "delete", "by-cli", "--yes") == "by-cli: deleted\n"
    assert airflow("services", "delete", "by-cli", "--yes") == "by-cli: there is no such service\n"


def test_service_is_kept_unless_its_name_is_typed(airflow, fdl, monkeypatch):
    airflow("services", "apply", str(fdl))
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with pytest.raises(SystemExit, match="nothing was deleted"):
        airflow("services", "delete", "by-cli")
    monkeypatch.setattr("sys.stdin", io.StringIO("by-cli\n"))
    assert airflow("services", "delete", "by-cli") == "by-cli: deleted\n"


def test_script_outside_the_files_directory_is_refused(airflow, fdl):
    fdl.write_text(FDL.replace("script.sh", "../script.sh"))
    with pytest.raises(SystemExit, match=r"error: .*script"):
        airflow("services", "apply", str(fdl))


def test_error_is_one_line_that_names_the_connection(airflow, monkeypatch):
    wrong = {"conn_type": "oscar", "host": "http://127.0.0.1:1", "login": "u", "password": "not-to-be-shown"}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(wrong))
    with pytest.raises(SystemExit, match="error: connection 'away'") as ended:
        airflow("services", "list", "-c", "away")
    assert "not-to-be-shown" not in str(ended.value)


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "list"),
        ("jobs", "clear"),
        ("jobs", "logs", "--latest"),
        ("services", "get"),
        ("services", "run", "--text", "x"),
        ("services", "job", "--text", "x"),
    ],
)
def test_a_service_that_is_not_there_is_said_the_same_way_everywhere(airflow, words):
    with pytest.raises(SystemExit, match=r"^error: there is no service 'none'; `airflow oscar services list` shows"):
        airflow(*words, "none")


def test_a_job_that_is_not_there_has_no_log(airflow, fdl):
    airflow("services", "apply", str(fdl))
    with pytest.raises(SystemExit, match="service 'by-cli' has no job 'none'; `airflow oscar jobs list by-cli`"):
        airflow("jobs", "logs", "by-cli", "none")
    assert airflow("jobs", "list", "by-cli") == "No data found\n"
    assert airflow("jobs", "list", "by-cli", "-o", "json") == "[]\n"
    airflow("services", "delete", "by-cli", "--yes")


def test_check_passes_on_every_connection_of_the_embedded_platform(airflow, platform):
    for words in (
        ("oscar_default",),
        ("interlink_default",),
        ("oscar_s3_default", "--place", "s3://incoming/", "--write"),
        ("dcache_default", "--place", "dcache:///", "--write"),
    ):
        rows = json.loads(airflow("check", *words, "-o", "json"))
        assert {row["result"] for row in rows} <= {"ok", "warning"}, rows
        assert not any("(s)" in row["detail"] or "Exception" in row["detail"] for row in rows)


def test_check_says_that_rights_in_a_store_need_a_place(airflow, platform):
    login, rights = json.loads(airflow("check", "oscar_s3_default", "-o", "json"))
    assert (login["result"], rights["result"]) == ("ok", "warning")
    assert "say where by --place s3://" in rights["detail"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("services", "list", "-c", "oscar_s3_default"), "is of type 'oscar_s3'; expected one of type 'oscar'"),
        (("quotas", "get"), "the administrator's, who has no quota; name a user"),
    ],
    ids=["another system", "administrator"],
)
def test_a_connection_that_does_not_fit_is_said_before_anything_is_asked(airflow, platform, words, message):
    with pytest.raises(SystemExit, match=message):
        airflow(*words)


def test_no_volumes_are_said_to_people_and_an_empty_list_to_programs(airflow, platform):
    assert airflow("volumes", "list") == "No data found\n"
    assert json.loads(airflow("volumes", "list", "-o", "json")) == []


def test_volumes_quotas_images_logs_and_metrics(airflow, platform, monkeypatch):
    assert airflow("volumes", "create", "by-cli-weights", "1Gi") == "by-cli-weights: created\n"
    assert json.loads(airflow("volumes", "list", "by-cli-weights", "-o", "json"))["name"] == "by-cli-weights"
    assert "by-cli-weights" in [each["name"] for each in json.loads(airflow("volumes", "list", "-o", "json"))]
    assert airflow("volumes", "delete", "by-cli-weights", "--yes") == "by-cli-weights: deleted\n"
    with pytest.raises(SystemExit, match="error: .*'by-cli-weights'"):
        airflow("volumes", "list", "by-cli-weights")
    with pytest.raises(SystemExit, match="from the first login"):
        airflow("quotas", "get", "somebody")
    monkeypatch.setattr(platform.oscar.options, "users", frozenset({"somebody"}))
    changed = json.loads(airflow("quotas", "set", "somebody", "--volumes", "disk=20Gi", "-o", "json"))
    assert changed == json.loads(airflow("quotas", "get", "somebody", "-o", "json"))
    assert changed["volumes"]["disk"]["max"] == "20Gi"
    with pytest.raises(SystemExit, match="nothing to change"):
        airflow("quotas", "set", "somebody")
    assert isinstance(json.loads(airflow("cluster", "logs", "-o", "json")), list)
    assert isinstance(json.loads(airflow("cluster", "metrics", "-o", "json")), dict)
    assert isinstance(json.loads(airflow("cluster", "metrics", "--by", "user", "-o", "json")), dict)
    with pytest.raises(SystemExit, match="give one of both"):
        airflow("cluster", "metrics", "--by", "user", "--service", "x")


def test_who_may_call_a_service_is_said_without_starting_a_job(airflow, fdl, tmp_path):
    airflow("services", "apply", str(fdl))
    hook = OscarHook()
    service = hook.run(hook.get_service("by-cli"))
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(f"{service['token']}\n")
    bad.write_text("0" * 64)
    assert airflow("services", "authorise", "by-cli") == "by-cli: may be called\n"
    assert airflow("services", "authorise", "by-cli", "--token-file", str(good)) == "by-cli: may be called\n"
    with pytest.raises(SystemExit) as refused:
        airflow("services", "authorise", "by-cli", "--token-file", str(bad))
    assert refused.value.code == 1
    bad.write_text("Bearer é\n\nx")
    with pytest.raises(SystemExit, match="holds no token of a service"):
        airflow("services", "authorise", "by-cli", "--token-file", str(bad))
    with pytest.raises(SystemExit, match="there is no service 'by-nobody'"):
        airflow("services", "authorise", "by-nobody")
    assert json.loads(airflow("jobs", "list", "by-cli", "-o", "json")) == []
    airflow("services", "delete", "by-cli", "--yes")
