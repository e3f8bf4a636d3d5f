# SPDX-License-Identifier: Apache-2.0
"""What oscar-cli people type: configuration, forms of the answer, and our own FDL."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from tests.support.command_line import parser
from tests.support.handlers import QuietHandler, serving

ROOT = Path(__file__).parents[3]
SERVICE = {"name": "svc", "image": "i", "script": "x", "token": "t" * 64, "cpu": "1", "memory": "1Gi"}


class Oscar:
    """Answers by method and path, and keeps what was sent."""

    def __init__(self, monkeypatch) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.sent: list[httpx.Request] = []
        monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps({"conn_type": "oscar", "host": "https://o.test"}))
        transport = httpx.MockTransport(self)
        monkeypatch.setattr(OscarHook, "client", lambda self: httpx.Client(transport=transport))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        found = self.answers.get((request.method, request.url.path), httpx.Response(404))
        return found(request) if callable(found) else found


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
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
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
    ("text", "body"), [("hello", base64.b64encode(b"hello")), ('{"Key": "a  b*"}', rb'{"Key":"a\u0020\u0020b\u002a"}')]
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
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    jobs["young"] = {"status": "Succeeded", "creation_time": "2026-01-02T00:00:00Z"}
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": jobs})
    oscar.answers["GET", "/system/logs/svc/young"] = httpx.Response(200, text="moo\n")
    assert airflow("jobs", "logs", "svc", "--latest") == "moo\n"
    assert airflow("jobs", "logs", "svc", "--latest", "--follow") == "moo\n"


class Store(QuietHandler):
    """A store that keeps one object, and breaks off within it where it is told to."""

    content = b""
    breaks_off = False

    def do_PUT(self):
        type(self).content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + self.breaks_off))
        self.end_headers()
        self.wfile.write(self.content)


@pytest.fixture
def store(oscar):
    handler = type("Handler", (Store,), {})
    with serving(handler) as url:

        def link(request):
            method = {"upload": "PUT", "download": "GET"}[json.loads(request.content)["operation"]]
            return httpx.Response(200, json={"method": method, "url": f"{url}/b/k", "headers": {}})

        oscar.answers["POST", "/system/buckets/b/presign"] = link
        yield handler


def test_a_file_goes_into_a_bucket_and_out_again(store, airflow, tmp_path):
    (tmp_path / "in").write_bytes(bytes(range(256)) * 5000)
    assert airflow("buckets", "put", "b", str(tmp_path / "in"), "--key", "k") == "b/k\n"
    airflow("buckets", "get", "b", "k", "--file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_a_download_that_breaks_off_leaves_what_was_there(store, airflow, tmp_path):
    store.content, store.breaks_off = b"half", True
    (tmp_path / "out").write_text("before")
    with pytest.raises(SystemExit, match="error: the store behind OSCAR.*broke off"):
        airflow("buckets", "get", "b", "k", "--file", str(tmp_path / "out"))
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_a_store_that_is_not_reached_is_said_in_one_line(oscar, airflow, tmp_path):
    link = {"method": "GET", "url": "http://127.0.0.1:1/b/k"}
    oscar.answers["POST", "/system/buckets/b/presign"] = httpx.Response(200, json=link)
    with pytest.raises(SystemExit, match="error: the store behind OSCAR.*cannot connect"):
        airflow("buckets", "get", "b", "k", "--file", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["a/..", "..", ".", "/", "a\0b"])
def test_a_key_that_names_no_file_is_refused(store, airflow, key):
    with pytest.raises(SystemExit, match="does not end with the name of a file; say --file"):
        airflow("buckets", "get", "b", key)


@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_names_that_a_terminal_would_obey_are_written_out(oscar, airflow, form):
    name = "a\x1b[31m\nred\ud800\u202e"
    oscar.answers["GET", "/system/buckets"] = httpx.Response(200, content=json.dumps([{"bucket_name": name}]).encode())
    out = airflow("buckets", "list", "-o", form)
    assert not set("\x1b\ud800\u202e") & set(out)
    assert "ud800" in out.lower()


@pytest.mark.parametrize("words", [("services", "apply"), ("import-config",), ("import", "storage")])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"functions: \xff\xfe", "not UTF-8"), (b"a: [", "is not YAML: line"), (b"- a", "expected a mapping")],
)
def test_a_file_that_cannot_be_read_is_said_in_one_line(oscar, airflow, tmp_path, words, content, message):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        airflow(*words, str(tmp_path / "f"))


@pytest.mark.parametrize("content", ["oscar: {c: }", "oscar: {c: [1]}", "oscar: []", "{}"])
def test_a_configuration_without_clusters_is_said(airflow, tmp_path, content):
    (tmp_path / "f").write_text(content)
    with pytest.raises(SystemExit, match="has no clusters; expected oscar-cli's form"):
        airflow("import-config", str(tmp_path / "f"))


def test_credentials_are_the_texts_that_oscar_cli_reads(airflow, tmp_path, monkeypatch):
    stored = {}
    monkeypatch.setattr(
        "airflow_provider_oscar.cli.cluster.store_connections", lambda found, overwrite: stored.update(found)
    )
    (tmp_path / "f").write_text("oscar: {c: {endpoint: 'https://o', auth_user: 0123, auth_password: off}}")
    airflow("import-config", str(tmp_path / "f"))
    assert (stored["c"]["login"], stored["c"]["password"]) == ("83", "off")


def test_a_service_token_calls_its_service_without_looking_at_it(oscar, capsysbinary, monkeypatch):
    fields = {"conn_type": "oscar", "host": "https://o.test", "password": "t", "extra": {"auth_type": "service_token"}}
    monkeypatch.setenv("AIRFLOW_CONN_OSCAR_DEFAULT", json.dumps(fields))
    oscar.answers["POST", "/run/svc"] = httpx.Response(200, content=b"moo")
    options = parser().parse_args(["oscar", "services", "run", "svc", "--text", "x"])
    options.func(options)
    assert (capsysbinary.readouterr().out, len(oscar.sent)) == (b"moo", 1)


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
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": jobs})
    rows = json.loads(airflow("jobs", "list", "svc", "--status", "Pending,running", "-o", "json"))
    assert {row["name"] for row in rows} == {"running", "pending"}


def test_log_has_times_if_asked_for(oscar, airflow):
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
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
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    assert airflow("jobs", "cancel", "svc", "a", "b") == "a: cancelled\nb: cancelled\n"


def federated(oscar, monkeypatch, *, conn_id="SOUTH"):
    """The service may hand its jobs to another cluster, under another name; its connection is ours, elsewhere."""
    member = {"type": "oscar", "cluster_id": "south", "service_name": "svc-eu", "priority": 1}
    fields = {"federation": {"members": [member]}, "clusters": {"south": {"endpoint": "https://south.test"}}}
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE | fields)
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": {"here": {"status": "Running"}}})
    oscar.answers["GET", "/system/logs/svc-eu"] = httpx.Response(200, json={"jobs": {"there": {"status": "Succeeded"}}})
    oscar.answers["GET", "/system/logs/svc-eu/there"] = httpx.Response(200, text="moo\n")
    oscar.answers["DELETE", "/system/logs/svc-eu/there"] = httpx.Response(204)
    there = {"conn_type": "oscar", "host": "https://south.test"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(there))


@pytest.mark.parametrize(("conn_id", "words"), [("SOUTH", ()), ("MINE", ("--member", "south=mine"))])
def test_jobs_that_a_federation_handed_on_are_listed_printed_and_cancelled_where_they_are(
    oscar, airflow, monkeypatch, conn_id, words
):
    federated(oscar, monkeypatch, conn_id=conn_id)
    rows = json.loads(airflow("jobs", "list", "svc", "-o", "json", *words))
    assert {row["name"]: row["connection"] for row in rows} == {"here": "oscar_default", "there": conn_id.lower()}
    assert "connection" in airflow("jobs", "list", "svc", *words).lower()
    assert airflow("jobs", "logs", "svc", "there", *words) == "moo\n"
    assert airflow("jobs", "logs", "svc", "there", "--follow", *words) == "moo\n"
    assert airflow("jobs", "cancel", "svc", "there", *words) == "there: cancelled\n"
    assert oscar.sent[-1].url == "https://south.test/system/logs/svc-eu/there"


def test_a_cluster_where_nobody_looks_is_named_beside_the_list(oscar, monkeypatch, capsys):
    federated(oscar, monkeypatch, conn_id="UNKNOWN")
    options = parser().parse_args(["oscar", "jobs", "list", "svc"])
    options.func(options)
    out, err = capsys.readouterr()
    assert "here" in out
    assert "may hand jobs to cluster 'south', where nobody looks; say --member south=CONN_ID" in err


def test_a_log_that_grows_is_followed_by_whole_lines_over_the_hand_over_to_another_cluster(oscar, airflow, monkeypatch):
    federated(oscar, monkeypatch)
    looks = iter(["one\ntw", "one\ntwo\n"])
    oscar.answers["GET", "/system/logs/svc/here"] = lambda _: httpx.Response(200, text=next(looks))

    def hand_over(_):
        oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": {}})
        gone = {"jobs": {"here": {"status": "Succeeded"}}}
        oscar.answers["GET", "/system/logs/svc-eu"] = httpx.Response(200, json=gone)
        oscar.answers["GET", "/system/logs/svc-eu/here"] = httpx.Response(200, text="one\ntwo\nthree")

    pauses = iter([lambda _: None, hand_over])
    monkeypatch.setattr("airflow_provider_oscar.cli.jobs.time.sleep", lambda seconds: next(pauses)(seconds))
    assert airflow("jobs", "logs", "svc", "here", "--follow") == "one\ntwo\nthree"


@pytest.mark.parametrize("words", [(), ("--follow",)])
def test_a_log_moves_no_cursor_of_a_terminal_and_is_whole_elsewhere(oscar, airflow, monkeypatch, words):
    hostile = "\x1b]0;owned\x07moo \x1b[2Jmoo\n\x9b31mthere\n"
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": {"j": {"status": "Failed"}}})
    oscar.answers["GET", "/system/logs/svc/j"] = lambda _: httpx.Response(200, text=hostile)
    assert airflow("jobs", "logs", "svc", "j", *words) == hostile
    monkeypatch.setattr("airflow_provider_oscar.cli.jobs._is_terminal", lambda: True)
    shown = airflow("jobs", "logs", "svc", "j", *words)
    assert shown.splitlines() == ["moo moo", "\\x9b31mthere"]


def test_a_name_that_no_job_has_is_refused_with_the_command_that_shows_them(oscar, airflow):
    oscar.answers["GET", "/system/services/svc"] = httpx.Response(200, json=SERVICE)
    oscar.answers["GET", "/system/logs/svc"] = httpx.Response(200, json={"jobs": {}})
    for words in ((), ("--follow",)):
        with pytest.raises(SystemExit, match="no job 'mine'; `airflow oscar jobs list svc` shows"):
            airflow("jobs", "logs", "svc", "mine", *words)
    with pytest.raises(SystemExit, match="there is no service 'nosuch'"):
        airflow("jobs", "list", "nosuch")


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
