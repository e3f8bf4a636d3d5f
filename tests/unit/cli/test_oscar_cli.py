# SPDX-License-Identifier: Apache-2.0
"""What oscar-cli people type: configuration, forms of the answer, and our own FDL."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import pytest
import yaml

from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from tests.unit.cli.test_table import parser

ROOT = Path(__file__).parents[3]
SERVICE = {"name": "svc", "image": "i", "script": "x", "token": "t" * 64, "cpu": "1", "memory": "1Gi"}


class Oscar:
    """Answers by method and path, and keeps what was sent."""

    def __init__(self, monkeypatch) -> None:
        self.answers: dict[tuple[str, str], httpx.Response] = {}
        self.sent: list[httpx.Request] = []
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps({"conn_type": "oscar", "host": "https://o.test"}))
        transport = httpx.MockTransport(self)
        monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(transport=transport))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return self.answers.get((request.method, request.url.path), httpx.Response(404))


@pytest.fixture
def oscar(monkeypatch):
    return Oscar(monkeypatch)


@pytest.fixture
def airflow(capsys):
    def run(*words: str) -> str:
        options = parser().parse_args(["oscar", *words])
        capsys.readouterr()
        options.func(options)
        return str(capsys.readouterr().out)

    return run


def test_our_own_fdl_applies_from_the_command_line(oscar, airflow):
    oscar.answers["POST", "/system/services"] = httpx.Response(201)
    out = airflow("services", "apply", str(ROOT / "dags" / "threedgan_service.yaml"), "--param", "image=mine:2")
    assert out == "threedgan: created\n"
    (post,) = (request for request in oscar.sent if request.method == "POST")
    body = json.loads(post.content)
    assert (body["image"], "OSCAR_SUPERVISOR" in body["script"]) == ("mine:2", True)
    assert airflow("services", "apply", str(ROOT / "dags" / "threedgan_service.yaml")) == "threedgan: created\n"


def test_template_without_a_value_names_the_option(oscar, airflow, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("functions: {oscar: [{c: {name: a, image: '{{ params.i }}', script: '@supervisor'}}]}")
    with pytest.raises(SystemExit, match="error: .*params.i.*give --param NAME=VALUE"):
        airflow("services", "apply", str(file))


@pytest.mark.parametrize("form", ["json", "yaml", "plain", "table"])
def test_every_form_has_the_whole_name(oscar, airflow, form):
    name = "job-" + "x" * 59
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": {name: {"status": "Running"}}})
    out = airflow("jobs", "list", "svc", "-o", form)
    assert name in out
    if form in ("json", "yaml"):
        assert yaml.safe_load(out)[0]["name"] == name


def test_service_is_shown_without_its_token(oscar, airflow):
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    out = airflow("services", "get", "svc", "-o", "json")
    assert (json.loads(out)["token"], "tttt" in out) == ("***", False)


@pytest.mark.parametrize(
    ("text", "body"), [("hello", base64.b64encode(b"hello")), ('{"Key": "a/b"}', b'{"Key": "a/b"}')]
)
def test_job_gets_an_event_as_it_is_and_anything_else_in_base64(oscar, airflow, text, body):
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    oscar.answers["GET", "/system/info"] = httpx.Response(200, json={"version": "v4.1.2"})
    oscar.answers["POST", "/job/svc"] = httpx.Response(201)
    assert airflow("services", "job", "svc", "--text", text, "--name", "mine") == "mine\n"
    assert oscar.sent[-1].content == body
    assert oscar.sent[-1].headers["authorization"] == f"Bearer {'t' * 64}"


def test_call_of_a_service_prints_its_decoded_answer(oscar, capsysbinary):
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    oscar.answers["POST", "/run/svc"] = httpx.Response(200, content=base64.b64encode(b"moo \xff"))
    options = parser().parse_args(["oscar", "services", "run", "svc", "--text", "x"])
    options.func(options)
    assert capsysbinary.readouterr().out == b"moo \xff"


def test_youngest_job_is_found(oscar, airflow):
    jobs = {"old": {"status": "Succeeded", "creation_time": "2026-01-01T00:00:00Z"}}
    jobs["young"] = {"status": "Succeeded", "creation_time": "2026-01-02T00:00:00Z"}
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": jobs})
    oscar.answers["GET", "/system/logs/svc/young"] = httpx.Response(200, text="moo\n")
    assert airflow("jobs", "logs", "svc", "--latest") == "moo\n"
    assert airflow("jobs", "logs", "svc", "--latest", "--follow") == "moo\n"


def test_clusters_of_oscar_cli_become_connections():
    claims = base64.urlsafe_b64encode(json.dumps({"iss": "https://i.test/realms/egi", "azp": "cli"}).encode()).decode()
    refresh = f"e30.{claims}.x"
    assert cluster_connection({"endpoint": "https://o", "auth_user": "u", "auth_password": "p"}) == {
        "conn_type": "oscar",
        "host": "https://o",
        "login": "u",
        "password": "p",
        "extra": {},
    }
    assert cluster_connection({"oidc_refresh_token": refresh, "ssl_verify": False})["extra"] == {
        "verify": False,
        "auth_type": "oidc",
        "refresh_token": refresh,
        "token_endpoint": "https://i.test/realms/egi/protocol/openid-connect/token",
        "client_id": "cli",
        "scopes": "",
    }
    assert cluster_connection({"oidc_account_name": "egi"})["extra"]["oidc_agent_account"] == "egi"


def test_jobs_are_chosen_by_their_status(oscar, airflow):
    jobs = {name: {"status": name.title()} for name in ("running", "pending", "failed")}
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": jobs})
    rows = json.loads(airflow("jobs", "list", "svc", "--status", "Pending,running", "-o", "json"))
    assert {row["name"] for row in rows} == {"running", "pending"}


def test_log_has_times_if_asked_for(oscar, airflow):
    oscar.answers["GET", "/system/logs/svc/j"] = httpx.Response(200, text="moo\n")
    assert airflow("jobs", "logs", "svc", "j", "--timestamps") == "moo\n"
    assert oscar.sent[-1].url.query == b"timestamps=true"


def test_several_services_and_jobs_go_at_once(oscar, airflow):
    for name in ("a", "b"):
        oscar.answers["DELETE", f"/system/services/{name}"] = httpx.Response(204)
        oscar.answers["DELETE", f"/system/logs/svc/{name}"] = httpx.Response(204)
    assert airflow("services", "delete", "a", "b", "c", "--yes").splitlines() == [
        "a: deleted",
        "b: deleted",
        "c: there is no such service",
    ]
    assert airflow("jobs", "cancel", "svc", "a", "b") == "a: cancelled\nb: cancelled\n"


OBJECTS = [
    {"object_name": "out/", "size_bytes": 0, "last_modified": "2026-01-09 00:00:00 +0000 UTC"},
    {"object_name": "out/old.txt", "size_bytes": 3, "last_modified": "2026-01-01 00:00:00 +0000 UTC"},
    {"object_name": "out/new.txt", "size_bytes": 3, "last_modified": "2026-01-02 00:00:00 +0000 UTC"},
    {"object_name": "in/newest.txt", "size_bytes": 3, "last_modified": "2026-01-03 00:00:00 +0000 UTC"},
]


def test_objects_are_chosen_by_their_prefix(oscar, airflow):
    oscar.answers["GET", "/system/buckets/b"] = httpx.Response(200, json={"objects": OBJECTS})
    rows = json.loads(airflow("buckets", "list", "b", "--prefix", "in/", "-o", "json"))
    assert [row["object_name"] for row in rows] == ["in/newest.txt"]
    with pytest.raises(SystemExit, match="name their bucket"):
        airflow("buckets", "list", "--prefix", "in/")


def test_the_youngest_object_below_a_prefix_is_asked_for(oscar, airflow):
    oscar.answers["GET", "/system/buckets/b"] = httpx.Response(200, json={"objects": OBJECTS})
    with pytest.raises(SystemExit):
        airflow("buckets", "get", "b", "out/", "--latest")
    assert json.loads(oscar.sent[-1].content)["object_key"] == "out/new.txt"
    with pytest.raises(SystemExit, match="no object below 'none/'"):
        airflow("buckets", "get", "b", "none/", "--latest")
    with pytest.raises(SystemExit, match="say --latest"):
        airflow("buckets", "get", "b")


def test_an_empty_object_has_a_size(oscar, airflow):
    oscar.answers["GET", "/system/buckets/b"] = httpx.Response(200, json={"objects": OBJECTS})
    sizes = {row["object_name"]: row["size_bytes"] for row in json.loads(airflow("buckets", "list", "b", "-o", "json"))}
    assert (sizes["out/"], sizes["out/new.txt"]) == (0, 3)


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/system/buckets/nosuch/presign", httpx.Response(404, text="Bucket 'nosuch' not found")),
        ("GET", "/system/buckets/nosuch", httpx.Response(500, text="Error listing objects: NoSuchBucket: it is not")),
    ],
)
def test_a_bucket_that_is_not_there_is_said_so(oscar, airflow, method, path, answer):
    oscar.answers[method, path] = answer
    words = ("get", "nosuch", "x") if method == "POST" else ("list", "nosuch")
    with pytest.raises(SystemExit, match="correct the name") as ended:
        airflow("buckets", *words)
    assert "route" not in str(ended.value)
