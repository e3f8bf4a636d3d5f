# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar check`` against the embedded servers: all is well, and each right is missed by name if it is taken
away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from oscar_testbed import LocalPlatform

from airflow_provider_oscar.hooks.dcache import DCacheHook
from tests.support.command_line import parser
from tests.support.guard import KubernetesGuard, S3Guard, guarded

RIGHTS = Path(__file__).parents[3] / "deploy" / "rights"
ROLE = next(
    each for each in yaml.safe_load_all((RIGHTS / "kubernetes.yaml").read_text()) if each and each["kind"] == "Role"
)
BUCKET, PLACE = "checked", "s3://checked/in/"
S3_RIGHTS = (
    ("s3:ListAllMyBuckets", "*"),
    ("s3:ListBucket", BUCKET),
    ("s3:GetObject", f"{BUCKET}/in/*"),
    ("s3:PutObject", f"{BUCKET}/in/*"),
    ("s3:DeleteObject", f"{BUCKET}/in/*"),
    ("s3:GetBucketNotification", BUCKET),
)


@pytest.fixture
def check(
    running_platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Run the command; return its exit code, its rows by check, and the text that a person reads."""
    for name, value in running_platform.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[object, dict[str, dict[str, Any]], str]:
        shown = []
        for form in ("json", "table"):
            options = parser().parse_args(["oscar", "check", *words, "-o", form])
            capsys.readouterr()
            code: object = 0
            try:
                options.func(options)
            except SystemExit as error:
                code = error.code
            shown.append(capsys.readouterr().out)
        for secret in (running_platform.s3.secret_key, running_platform.oscar.password):
            assert secret not in "".join(shown)
        print(shown[1])
        return code, {row["check"]: row for row in json.loads(shown[0])}, shown[1]

    return run


def failed(rows: dict[str, dict[str, Any]]) -> set[str]:
    """Checks that did not end well."""
    return {name for name, row in rows.items() if row["result"] != "ok"}


def test_oscar_is_checked(check):
    code, rows, text = check("oscar_default", "--write")
    assert (code, failed(rows) - {"interLink"}) == (0, set())
    assert "OSCAR v4.1.2" in text
    assert set(rows) >= {"latency", "clock difference", "list services", "list buckets", "quota", "write"}


def test_a_login_that_is_wrong_is_said_in_the_first_row_that_needs_it(check, running_platform, monkeypatch):
    wrong = {**running_platform.connections["oscar_default"], "password": "wrong-password"}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(wrong))
    code, rows, text = check("oscar_default")
    assert code == 1
    assert rows["latency"]["result"] == "ok"
    assert "check user, password or token" in rows["version and login"]["detail"]
    assert rows["list services"]["result"] == "skipped"
    assert "wrong-password" not in text


@pytest.fixture
def store(running_platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch, check: Any) -> Iterator[S3Guard]:
    """The store behind a guard, with one object in the place."""
    running_platform.s3.create_bucket(BUCKET)
    running_platform.s3.client().put_object(Bucket=BUCKET, Key="in/a.txt", Body=b"hello")
    guard = S3Guard(S3_RIGHTS)
    with guarded(running_platform.s3.endpoint, guard) as url:
        fields = {**running_platform.connections["oscar_s3_default"], "host": url}
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(fields))
        yield guard


def test_a_store_is_checked_and_nothing_stays(check, store, running_platform):
    code, rows, _ = check("oscar_s3_default", "--place", PLACE, "--write")
    assert (code, failed(rows) - {"notifications"}) == (0, set())
    assert "in/a.txt" in rows["read"]["detail"]
    listed = running_platform.s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [each["Key"] for each in listed] == ["in/a.txt"]


@pytest.mark.parametrize(
    ("right", "missed", "result"),
    [
        ("s3:ListBucket", "list", "failed"),
        ("s3:GetObject", "read", "failed"),
        ("s3:PutObject", "write", "failed"),
        ("s3:DeleteObject", "write", "failed"),
        ("s3:GetBucketNotification", "notifications", "warning"),
    ],
)
def test_each_right_of_a_store_is_missed(check, store, right, missed, result):
    store.granted = {each for each in store.granted if each[0] != right}
    code, rows, _ = check("oscar_s3_default", "--place", PLACE, "--write")
    assert (rows[missed]["result"], code) == (result, 1 if result == "failed" else 0)
    assert "may not do this in bucket 'checked'" in rows[missed]["detail"]
    assert f"grant it {right}" in rows[missed]["detail"]


def test_a_key_that_may_not_list_buckets_is_fine(check, store):
    store.granted = {each for each in store.granted if each[0] != "s3:ListAllMyBuckets"}
    code, rows, _ = check("oscar_s3_default", "--place", PLACE)
    assert (code, rows["latency and login"]["result"]) == (0, "ok")


def test_a_store_that_is_away_is_said_so(check, monkeypatch):
    fields = {"conn_type": "oscar_s3", "host": "http://127.0.0.1:1", "login": "a", "password": "b"}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_S3_DEFAULT", json.dumps(fields))
    code, rows, _ = check("oscar_s3_default")
    assert (code, "not reachable" in rows["latency and login"]["detail"]) == (1, True)


@pytest.fixture
def kubernetes(running_platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch, check: Any) -> Iterator[Any]:
    """Kubernetes behind a guard that grants what deploy/rights does, and nodes."""
    guard = KubernetesGuard.of_role(ROLE)
    guard.granted |= {("list", "nodes"), ("GET", "/version"), ("GET", "/version/")}
    fields = json.loads(json.dumps(running_platform.connections["interlink_default"]))
    config = json.loads(fields["extra"]["kube_config_secret"])
    cluster = config["clusters"][0]["cluster"]
    with guarded(cluster["server"], guard) as url:
        cluster["server"] = url
        fields["extra"]["kube_config_secret"] = json.dumps(config)
        monkeypatch.setenv("AIRFLOW_CONN_INTERLINK_DEFAULT", json.dumps(fields))
        yield guard


def test_kubernetes_with_interlink_is_checked(check, kubernetes):
    code, rows, _ = check("interlink_default")
    assert (code, failed(rows)) == (0, set())
    assert "slurm" in rows["virtual nodes"]["detail"]


@pytest.mark.parametrize(
    ("right", "missed"),
    [
        (("create", "pods"), "create pods"),
        (("list", "pods"), "list pods"),
        (("delete", "pods"), "delete pods"),
        (("get", "pods/log"), "get pods/log"),
        (("create", "secrets"), "create secrets"),
        (("delete", "secrets"), "delete secrets"),
    ],
)
def test_each_right_of_kubernetes_is_missed(check, kubernetes, right, missed):
    assert right in kubernetes.granted
    kubernetes.granted.discard(right)
    code, rows, _ = check("interlink_default")
    assert (code, failed(rows)) == (1, {missed})
    assert f"may not {missed} in namespace" in rows[missed]["detail"]
    assert "deploy/rights" in rows[missed]["detail"]


def test_nodes_that_may_not_be_listed_are_a_warning(check, kubernetes):
    kubernetes.granted.discard(("list", "nodes"))
    code, rows, _ = check("interlink_default")
    assert (code, rows["virtual nodes"]["result"]) == (0, "warning")
    assert "may not list nodes" in rows["virtual nodes"]["detail"]


def test_dcache_is_checked(check, running_platform):
    hook = DCacheHook("dcache_default")
    hook.make_directory("/data/checked")
    hook.put_bytes("/data/checked", "a.txt", b"hello")
    code, rows, _ = check("dcache_default", "--place", "dcache://dcache_default/data/checked", "--write")
    assert (code, failed(rows)) == (0, set())
    assert rows["read"]["detail"] == "'/data/checked/a.txt'"
    assert [entry.name for entry in hook.list_entries("/data/checked")] == ["a.txt"]


def test_a_directory_that_is_not_there_and_a_wrong_password_fail(check, running_platform, monkeypatch):
    code, rows, _ = check("dcache_default", "--place", "dcache://dcache_default/data/nosuch")
    assert (code, rows["list"]["result"]) == (1, "failed")
    fields = {**running_platform.connections["dcache_default"], "password": "wrong-password"}
    monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(fields))
    code, rows, text = check("dcache_default")
    assert (code, rows["latency and login"]["result"], rows["list"]["result"]) == (1, "failed", "skipped")
    assert "wrong-password" not in text
