# SPDX-License-Identifier: Apache-2.0
"""No secret is in what hooks and their libraries log, at level DEBUG as well.

Keeps row T10 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

import airflow_provider_oscar
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.http.redaction import redacted
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.submissions import JobRequest
from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings, _Answer
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.notifications import ListenRequest
from airflow_provider_oscar.hooks.slurm.hook import SlurmHook
from airflow_provider_oscar.hooks.stomp.frames import Frame
from airflow_provider_oscar.ingest.dcnios.workflow import Element
from airflow_provider_oscar.jobs.oscar import OscarWork
from airflow_provider_oscar.plugins.receiver import _Settings
from tests.support.handlers import QuietHandler, serving

PASSWORD, SESSION, TOKEN, MACAROON = "hush-password", "hush-session", "hush-token", "hush-macaroon"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Answer everything with 200, headers that hold secrets, and a body that most take."""

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.dumps({"macaroon": MACAROON, "items": [], "jobs": {}, "name": "svc", "token": TOKEN}).encode()
            if self.path.endswith("/secrets"):
                body = sent  # Kubernetes answers with what it has made
            self.send_response(200)
            for name, value in {
                "ETag": '"e"', "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT", "Content-Type": "application/json",
                "Set-Cookie": f"session={SESSION}; Path=/", "X-Rucio-Auth-Token": TOKEN,
                "Content-Length": str(len(body)),
            }.items():  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PROPFIND = do_MKCOL = answer

    with serving(Handler) as url:
        yield url


def ask_s3(url: str) -> list[str]:
    """Use the store as watchers and jobs do; return what must not be logged."""
    extra = json.dumps({"session_token": SESSION})
    connection = Connection(conn_id="s", conn_type="oscar_s3", host=url, login="KEY", password=PASSWORD, extra=extra)
    hook = OscarS3Hook("s", connection=connection)
    event = hook.head("bucket", "key")
    assert event is not None
    given = hook.stage_in(event, lifetime=timedelta(hours=1))
    taken = hook.stage_out("s3://bucket/out", submission_id="job", lifetime=timedelta(hours=1))
    with contextlib.suppress(OscarProviderError):
        hook.list_page("bucket", "in/")
    signatures = [parse_qs(urlsplit(given.url).query)["X-Amz-Signature"][0], taken.fields["x-amz-signature"]]
    return [PASSWORD, SESSION, taken.fields["policy"], *signatures]


def ask_dcache(url: str) -> list[str]:
    connection = Connection(conn_id="d", conn_type="dcache", host=url, login="u", password=PASSWORD)
    hook = DCacheHook("d", connection=connection)
    hook.put_bytes("/x", "a", b"x")
    hook.read_bytes("dcache://d/x/a", 1000)
    hook.capability("/x", activities=("LIST",), lifetime=timedelta(hours=1))
    return [PASSWORD, SESSION, MACAROON]


def ask_oscar(url: str) -> list[str]:
    connection = Connection(conn_id="o", conn_type="oscar", host=url, login="u", password=PASSWORD)
    hook = OscarHook("o", connection=connection)
    hook.run(hook.get_service("svc"))
    with contextlib.suppress(OscarProviderError):  # it is none of OSCAR's
        hook.run(hook.list_jobs("svc"))
    return [PASSWORD, SESSION, TOKEN]


def ask_kubernetes(url: str) -> list[str]:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    extra = json.dumps({"kube_config_secret": json.dumps(config)})
    hook = InterLinkHook(connection=Connection(conn_id="i", conn_type="interlink", extra=extra))
    hook.list_pods()
    hook._put_secret("s", {"job.json": PASSWORD}, "uid")
    return [PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), SESSION, TOKEN]


def ask_slurm(url: str) -> list[str]:
    connection = Connection(
        conn_id="l", conn_type="http", host=url, login="u", password=TOKEN, extra='{"api_version": "v0.0.40"}'
    )
    SlurmHook("l", connection=connection).jobs()
    return [TOKEN, SESSION]


def ask_rucio(url: str) -> list[str]:
    connection = Connection(conn_id="r", conn_type="generic", host=url, login="u", password=PASSWORD)
    client = RucioClient(RucioSettings.from_connection(connection))
    with contextlib.suppress(OscarProviderError):
        list(client.files("scope", "name"))
    client.close()
    return [PASSWORD, SESSION, TOKEN]


def ask_web(url: str) -> list[str]:
    extra = json.dumps({"headers": {"X-Api-Key": TOKEN}})
    connection = Connection(conn_id="w", conn_type="generic", login="u", password=PASSWORD, extra=extra)
    hook = FileSystemHook("http", "w", connection=connection)
    with contextlib.suppress(OscarProviderError):
        hook.head(url, f"a.h5?token={MACAROON}")
    with contextlib.suppress(OscarProviderError):
        list(hook.iter_entries(f"{url}/in/?sig={SESSION}"))
    return [PASSWORD, base64.b64encode(f"u:{PASSWORD}".encode()).decode(), SESSION, TOKEN, MACAROON]


@pytest.mark.parametrize("ask", [ask_s3, ask_dcache, ask_oscar, ask_kubernetes, ask_slurm, ask_rucio, ask_web])
def test_no_secret_is_logged_at_level_debug(ask, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "botocore", "urllib3", "kubernetes", "requests", "aiohttp", "fsspec", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    with server() as url:
        secrets = ask(url)
    # Its client sets the level of urllib3 itself.
    assert len(caplog.records) > 2 or ask is ask_kubernetes, "the libraries do log"
    lines = [record.getMessage() for record in caplog.records]
    told = {secret: [line for line in lines if secret in line] for secret in secrets}
    assert not any(told.values()), told


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("GET /b/k?X-Amz-Expires=60&X-Amz-Signature=abc123 HTTP/1.1", "X-Amz-Expires=60"),
        ("Location: http://pool/f?authz=MDAxY2xv&x=1", "&x=1"),
        ("headers={'Authorization': b'Bearer abc123', 'Accept': '*/*'}", "'Accept': '*/*'"),
        ("authorization:Basic dTpw\nhost:h", "host:h"),
        ("[(b'Set-Cookie', b'session=abc123; Path=/'), (b'Date', b'now')]", "now"),
        ("Signature:\n" + "ab" * 32, "Signature"),
    ],
)
def test_secrets_of_any_form_are_hidden_and_the_rest_stays(line, kept):
    shown = redacted(line)
    assert kept in shown
    assert not any(secret in shown for secret in ("abc123", "MDAxY2xv", "dTpw", "ab" * 32))


@given(st.text())
def test_any_text_can_be_redacted_and_stays_what_it_is(text):
    once = redacted(text)
    assert redacted(once) == once


@pytest.mark.parametrize(
    "line",
    [
        "Response body:\nb'<AssumeRoleResult><SecretAccessKey>hush</SecretAccessKey><Expiration>soon'",
        "Response body:\nb'<SessionToken>hush</SessionToken>'",
        '{"access_token": "hush", "expires_in": 5}',
        "{'secretAccessKey': 'hush'}",
        '{"macaroon":"hush"}',
        "grant_type=refresh_token&refresh_token=hush",
        "GET https://someone:hush@store.test/a HTTP/1.1",
        "GET /a?token=hush&x=1",
        "Incremented Retry for (url='/b/k?X-Goog-Signature=hush'): Retry(total=2)",
        "{'X-Rucio-Password': 'hush', 'Accept': '*/*'}",
        "{'x-api-key': 'hush'}",
        "Proxy-Authorization: Basic hush",
        "/upload?password=hush",
    ],
)
def test_bodies_and_logins_are_redacted_too(line):
    assert "hush" not in redacted(line)
    assert "***" in redacted(line)


@pytest.mark.parametrize(
    "value",
    [
        JobRequest("svc", b"hush", "Bearer hush"),
        _Settings("c", secret="hush"),
        ListenRequest("https://store.test", {"Authorization": "hush"}, "connection 'c'"),
        _Answer(200, {"X-Rucio-Auth-Token": "hush"}, b"hush"),
        Frame("CONNECT", {"passcode": "hush"}),
        OscarWork(b"hush"),
        Element("dest", "x", {"password": "hush"}, ssl_context={"Keystore Password": "hush"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_traceback_shows_of_local_variables_holds_no_credential(value):
    assert "hush" not in f"{value!r} {value}"


SECRET = re.compile(
    "(?i)(.*_)?(password|passcode|passphrase|token|macaroon|authorization|cookies?|credentials?|signing_key|secret|masters"
    "|session_token|secret_key|private_key|headers|kube_config|body|ssl_context|storage_providers)"
)
#: What is called so and is none: the name of a Secret, a count of a listing, what a store or broker told.
HARMLESS = {
    "PodStatus.secret", "ListingPage.next_token", "OscarRequests.service_token", "QueueMessage.body", "Frame.body",
    "FlowPlan.token_only", "Redacted.redacted",
}  # fmt: skip


def shown_fields(tree: ast.Module) -> Iterator[str]:
    """Yield the fields of data classes and structs whose names are those of secrets, and that ``repr`` shows."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        made = [ast.unparse(each) for each in (*node.decorator_list, *node.bases)]
        if not any("dataclass" in each or "Struct" in each or "Redacted" in each for each in made):
            continue
        if any("repr=False" in each for each in made) or any(
            getattr(each, "name", "") == "__repr__" for each in node.body
        ):
            continue
        hidden = next((ast.unparse(each) for each in node.body if ast.unparse(each).startswith("redacted:")), "")
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                name, value = each.target.id, ast.unparse(each.value) if each.value else ""
                secret = SECRET.fullmatch(name) and "ClassVar" not in ast.unparse(each.annotation)
                if secret and "repr=False" not in value and f"'{name}'" not in hidden:
                    yield f"{node.name}.{name}"


def test_no_field_that_is_called_as_a_secret_is_shown_by_repr():
    """Of any class of the provider and of the program beside a job, also of one that nobody has written yet."""
    sources = sorted(Path(airflow_provider_oscar.__file__).parent.rglob("*.py"))
    found = {name for path in sources for name in shown_fields(ast.parse(path.read_text()))}
    assert found - HARMLESS == set()
    assert len(sources) > 100
    wrong = "@dataclass\nclass A:\n    token: str\n    api_password: str = field(repr=False)\n    name: str = ''"
    assert list(shown_fields(ast.parse(wrong))) == ["A.token"]


@pytest.mark.parametrize("action", ["head", "exists", "delete", "iter_entries"])
def test_a_message_about_a_file_of_a_web_server_shows_no_query_of_its_url(action, monkeypatch):
    class Away:
        def __getattr__(self, name: str) -> object:
            raise OSError("it is away")

    hook = FileSystemHook("https", "")
    monkeypatch.setattr(FileSystemHook, "fs", Away())
    monkeypatch.setattr(FileSystemHook, "_plain", Away())
    where = ("https://u:hush@store.test/data/?token=hush", "a?token=hush")
    with pytest.raises(OscarProviderError, match=r"store\.test/data") as raised:
        list(hook.iter_entries(where[0])) if action == "iter_entries" else getattr(hook, action)(*where)
    assert "hush" not in str(raised.value)
