# SPDX-License-Identifier: Apache-2.0
"""The dCache hook and its flows against answers written by hand: credentials, redirects, channels, tape, macaroons."""

from __future__ import annotations

import json
from datetime import timedelta

import httpx
import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.hooks.dcache import DCacheHook, events, rest, tape, webdav
from airflow_provider_oscar.hooks.dcache.auth import CredentialGuard, discover_wlcg_token
from airflow_provider_oscar.hooks.dcache.errors import status_error
from airflow_provider_oscar.hooks.dcache.settings import AuthMode, DCacheSettings

DOOR = "https://door.example:2880/base"
FRONTEND = "https://front.example:3880"


def settings(**fields) -> DCacheSettings:
    extra = {"frontend_url": FRONTEND} | fields.pop("extra", {})
    base = {"conn_id": "dc", "conn_type": "dcache", "host": DOOR, "login": "u", "password": "pw"}
    return DCacheSettings.from_connection(Connection(**base | fields, extra=json.dumps(extra)))


DOOR_API = webdav.WebDavEndpoint(settings())
FRONT_API = rest.RestEndpoint(settings())


def play(flow, *answers):
    """Drive a flow by hand; return the requests it made and its result."""
    requests = [next(flow)]
    for answer in answers:
        try:
            requests.append(flow.send(answer))
        except StopIteration as end:
            return requests, end.value
    raise AssertionError(f"the flow wants more than {len(answers)} answers")


def ok(body=None, status=200, **headers):
    return (
        httpx.Response(status, json=body, headers=headers)
        if body is not None
        else httpx.Response(status, headers=headers)
    )


class TestConnection:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"host": None}, "host is empty"),
            ({"host": "http://door.example"}, "plain http"),
            ({"host": "https://u:p@door.example"}, "without login"),
            ({"host": "ftp://door.example"}, "expected https"),
            ({"extra": {"auth": "magic"}}, "expected 'none', 'basic'"),
            ({"extra": {"auth": "token_file"}}, "'token_file' is empty"),
            ({"login": None, "extra": {"auth": "basic"}}, "'login' is empty"),
            ({"extra": {"frontend_url": "http://front.example"}}, "frontend_url"),
            ({"extra": {"verify": 7}}, "'verify'"),
            ({"extra": {"allow_insecure_http": "perhaps"}}, "allow_insecure_http"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_what_is_wrong_is_named(self, fields, words):
        with pytest.raises(DefinitionError, match=words) as caught:
            settings(**fields)
        assert "'dc'" in str(caught.value)
        assert "pw" not in str(caught.value)

    def test_plain_http_is_fine_on_this_machine(self):
        assert settings(host="http://127.0.0.1:8080/x").webdav_url == "http://127.0.0.1:8080/x"

    def test_secrets_are_not_shown(self):
        assert "pw" not in repr(settings())

    @pytest.mark.parametrize(
        ("fields", "mode"),
        [
            ({}, AuthMode.BASIC),
            ({"login": None}, AuthMode.NONE),
            ({"extra": {"token": "t"}}, AuthMode.TOKEN),
            ({"extra": {"token_file": "/t"}}, AuthMode.TOKEN_FILE),
            ({"extra": {"auth": "wlcg"}}, AuthMode.WLCG),
        ],
        ids=["login", "nothing", "token", "file", "named"],
    )
    def test_the_mode_follows_from_what_is_there(self, fields, mode):
        assert settings(**fields).auth is mode

    def test_a_missing_ca_file_is_named(self):
        hook = DCacheHook(
            "dc",
            connection=Connection(conn_id="dc", conn_type="dcache", host=DOOR, extra='{"verify": "/no/such/ca.pem"}'),
        )
        ok, text = hook.test_connection()
        assert not ok
        assert "/no/such/ca.pem" in text


class TestCredentials:
    def exchange(self, guard, url, *statuses):
        seen = []

        def handler(request):
            seen.append(request.headers.get("authorization"))
            return httpx.Response(statuses[len(seen) - 1])

        with httpx.Client(transport=httpx.MockTransport(handler), auth=guard) as client:
            client.get(url)
        return seen

    def test_they_are_sent_with_the_first_request(self):
        assert self.exchange(CredentialGuard(lambda: "Basic x", (DOOR,)), DOOR + "/a", 200) == ["Basic x"]

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/a",
            "https://door.example/a",
            "http://door.example:2880/a",
            "https://door.example.evil:2880/",
        ],
        ids=["host", "port", "scheme", "suffix"],
    )
    def test_they_never_leave_their_origin(self, url):
        assert self.exchange(CredentialGuard(lambda: "Basic x", (DOOR,)), url, 200) == [None]

    def test_a_token_renewed_meanwhile_is_tried_once(self):
        tokens = iter(["Bearer old", "Bearer new"])
        assert self.exchange(CredentialGuard(lambda: next(tokens), (DOOR,)), DOOR, 401, 401) == [
            "Bearer old",
            "Bearer new",
        ]

    def test_the_same_credentials_are_not_sent_twice(self):
        assert self.exchange(CredentialGuard(lambda: "Basic x", (DOOR,)), DOOR, 401) == ["Basic x"]

    def test_a_token_file_is_read_again_for_each_request(self, tmp_path):
        from airflow_provider_oscar.hooks.dcache.auth import credentials

        file = tmp_path / "token"
        header = credentials(settings(extra={"token_file": str(file)}))
        file.write_text("one\n")
        assert header() == "Bearer one"
        file.write_text("two\n")
        assert header() == "Bearer two"
        file.write_text("two words\r\nX-Injected: yes")
        with pytest.raises(DefinitionError, match="does not hold a bearer token") as caught:
            header()
        assert "Injected" not in str(caught.value)

    def test_wlcg_discovery_looks_in_the_order_of_the_standard(self, tmp_path):
        import os

        (tmp_path / "named").write_text("named")
        (tmp_path / f"bt_u{os.getuid()}").write_text("found")
        runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
        named = {**runtime, "BEARER_TOKEN_FILE": str(tmp_path / "named")}
        assert discover_wlcg_token({**named, "BEARER_TOKEN": " direct "}, os.getuid()) == "direct"
        assert discover_wlcg_token(named, os.getuid()) == "named"
        assert discover_wlcg_token(runtime, os.getuid()) == "found"


class TestRedirects:
    def test_a_reader_is_passed_on_to_a_pool(self):
        requests, data = play(
            webdav.read(DOOR_API, "/a"),
            ok(status=302, location="https://pool.example/x?uuid=1"),
            httpx.Response(200, content=b"d"),
        )
        assert data == b"d"
        assert str(requests[1].url) == "https://pool.example/x?uuid=1"
        assert "authorization" not in requests[1].headers

    def test_from_https_to_http_is_refused_and_the_query_is_not_shown(self):
        with pytest.raises(PermanentError, match="plain http") as caught:
            play(webdav.read(DOOR_API, "/a"), ok(status=307, location="http://pool.example/x?dcache-http-uuid=secret"))
        assert "secret" not in str(caught.value)

    def test_from_https_to_http_even_on_this_machine_is_refused(self):
        with pytest.raises(PermanentError, match="plain http"):
            play(webdav.read(DOOR_API, "/a"), ok(status=307, location="http://127.0.0.1/x"))

    @pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/"], ids=repr)
    def test_other_schemes_are_refused(self, location):
        with pytest.raises(PermanentError, match="redirected"):
            play(webdav.read(DOOR_API, "/a"), ok(status=302, location=location))

    def test_a_redirect_to_nowhere_may_pass(self):
        with pytest.raises(TransientError, match="nowhere"):
            play(webdav.read(DOOR_API, "/a"), ok(status=302, location=""))

    def test_rounds_end(self):
        hop = ok(status=302, location="https://door.example:2880/base/b")
        with pytest.raises(PermanentError, match="more than 3 times"):
            play(webdav.read(DOOR_API, "/a"), hop, hop, hop, hop)


class TestDoor:
    def test_missing_directories_are_made_from_the_top(self):
        flow = webdav.make_directory(DOOR_API, "/a/b")
        requests, _ = play(flow, ok(status=409), ok(status=409), ok(status=201), ok(status=201))
        assert [(r.method, r.url.path) for r in requests] == [
            ("MKCOL", "/base/a/b/"), ("MKCOL", "/base/a/"), ("MKCOL", "/base/a/"), ("MKCOL", "/base/a/b/"),
        ]  # fmt: skip

    def test_a_macaroon_is_asked_for_in_the_exact_form(self):
        flow = webdav.mint_macaroon(
            DOOR_API, "/in/a b", activities=("DOWNLOAD",), lifetime=timedelta(hours=1), max_upload=5
        )
        (request,), macaroon = play(flow, ok({"macaroon": "MDAx"}))
        assert macaroon == "MDAx"
        assert request.headers["content-type"] == "application/macaroon-request"
        assert json.loads(request.content) == {"caveats": ["activity:DOWNLOAD", "max-upload:5"], "validity": "PT3600S"}
        assert request.url.raw_path == b"/base/in/a%20b"

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (ok(status=405), webdav.MacaroonsUnsupported),
            (ok(status=501), webdav.MacaroonsUnsupported),
            (httpx.Response(200, text="<html>"), webdav.MacaroonsUnsupported),
            (ok({"macaroon": "a\r\nX: y"}), webdav.MacaroonsUnsupported),
            (ok(status=400), DefinitionError),
            (ok(status=401), DefinitionError),
            (ok(status=503), TransientError),
        ],
        ids=["405", "501", "html", "injection", "400", "401", "503"],
    )
    def test_no_macaroon_is_a_clear_error(self, answer, kind):
        flow = webdav.mint_macaroon(DOOR_API, "/a", activities=("DOWNLOAD",), lifetime=timedelta(hours=1))
        with pytest.raises(kind):
            play(flow, answer, ok(status=207))

    @pytest.mark.parametrize("answer", [ok(status=404), ok(status=405), httpx.Response(200, text="<html>")], ids=repr)
    def test_what_answers_while_the_door_is_away_says_nothing_of_its_macaroons(self, answer):
        """Else the connection's own credentials might be handed out, or the task fail for good."""
        flow = webdav.mint_macaroon(DOOR_API, "/a", activities=("DOWNLOAD",), lifetime=timedelta(hours=1))
        with pytest.raises(TransientError):
            play(flow, answer, ok(status=404))

    def test_a_macaroon_for_more_than_a_week_is_refused(self):
        with pytest.raises(DefinitionError, match="7 days"):
            next(webdav.mint_macaroon(DOOR_API, "/a", activities=("LIST",), lifetime=timedelta(days=8)))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, PermanentError), (401, AccessError), (403, AccessError), (404, BadInputError), (409, PermanentError),
     (418, PermanentError), (423, TransientError), (429, TransientError), (500, TransientError), (503, TransientError)],
)  # fmt: skip
def test_every_status_has_an_error(status, kind):
    error = status_error(httpx.Response(status), display_name="connection 'dc'", action="list '/x'")
    assert type(error) is kind
    assert "connection 'dc': cannot list '/x'" in str(error)


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "9"}, 9.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:30 GMT", "date": "Sun, 22 Nov 2026 09:00:00 GMT"}, 30.0),
        ({"retry-after": "soon"}, 60.0),
        ({}, 60.0),
    ],
    ids=["seconds", "too long", "date", "nonsense", "unsaid"],
)
def test_a_429_says_when_to_come_back(headers, delay):
    error = status_error(httpx.Response(429, headers=headers), display_name="w", action="a")
    assert isinstance(error, TransientError)
    assert error.delay == delay


class TestChannels:
    def test_a_channel_is_found_below_our_own_frontend_whatever_host_the_server_names(self):
        (request,), channel = play(
            events.create_channel(FRONT_API, client_id="c" * 300),
            ok(status=201, location="http://internal:1/api/v1/events/channels/AB_c"),
        )
        assert channel == "/events/channels/AB_c"
        assert json.loads(request.content) == {"client-id": "c" * 256}
        assert request.url.host == "front.example"

    @pytest.mark.parametrize("location", ["", "https://x/else", "https://x/api/v1/../../admin"], ids=repr)
    def test_a_location_elsewhere_is_refused(self, location):
        with pytest.raises(PermanentError, match="location"):
            play(events.create_channel(FRONT_API), ok(status=201, location=location))

    def test_a_merged_subscription_is_no_error_and_its_id_stays_encoded(self):
        location = f"{FRONTEND}/api/v1/events/channels/A/subscriptions/inotify/x%2Fy+z"
        (request,), path = play(
            events.watch(FRONT_API, "/events/channels/A", "/in/"), ok(status=303, location=location)
        )
        assert path == "/events/channels/A/subscriptions/inotify/x%2Fy+z"
        assert json.loads(request.content)["path"] == "/base/in"

    def test_a_channel_that_is_gone_is_told_apart(self):
        with pytest.raises(events.ChannelGone):
            play(events.watch(FRONT_API, "/events/channels/A", "/in"), ok(status=404))

    def test_too_many_channels_is_for_later(self):
        with pytest.raises(TransientError):
            play(events.create_channel(FRONT_API), ok(status=429))

    def test_the_stream_resumes_only_when_told_to(self):
        assert "last-event-id" not in events.stream_request(FRONT_API, "/events/channels/A").headers
        request = events.stream_request(FRONT_API, "/events/channels/A", last_event_id="41")
        assert request.headers["last-event-id"] == "41"
        assert request.headers["accept"] == "text/event-stream"

    async def test_a_stream_that_ends_is_an_error_after_its_events(self):
        def handler(request):
            return httpx.Response(200, content=b"data: a\n\n", headers={"content-type": "text/event-stream"})

        seen = []

        async def read_all(client):
            request = events.stream_request(FRONT_API, "/events/channels/A")
            async for event in events.stream(client, FRONT_API, request, silence=1, parser=events.SseParser()):
                seen.append(event.data)

        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            with pytest.raises(TransientError, match="closed"):
                await read_all(client)
        assert seen == ["a"]


class TestNamespace:
    def test_no_directory_is_too_large_to_be_read(self, monkeypatch):
        """Of more than a hundred thousand entries there are more values than any other answer may have."""
        monkeypatch.setattr(large_json, "load", lambda *_, **__: pytest.fail("it is read at once"))
        names = [f"f{number}" for number in range(3000)] + ["caf\u00e9", "\x85"]
        body = {"fileType": "DIR", "children": [{"fileName": name, "fileType": "REGULAR"} for name in names]}
        found, unreadable = play(rest.children(FRONT_API, "/in"), ok(body))[1]
        assert ([entry.path for entry in found], unreadable) == ([f"/in/{name}" for name in names], 0)

    def test_children_with_names_that_are_paths_are_left_out(self):
        body = {
            "fileType": "DIR",
            "children": [{"fileName": name} for name in ("a", "../b", "c/d", "..", "", None)] + [7],
        }
        assert [entry.path for entry in play(rest.children(FRONT_API, "/in"), ok(body))[1][0]] == ["/in/a"]

    def test_a_file_is_no_directory(self):
        with pytest.raises(PermanentError, match="not a directory"):
            play(rest.children(FRONT_API, "/in"), ok({"fileType": "REGULAR"}))

    @pytest.mark.parametrize(
        "answer",
        [
            ok({"detail": "No such file or directory /x", "title": "Not Found", "status": "404"}, 404),
            ok({"errors": [{"message": "Not Found", "status": "404"}]}, 404),
            ok(status=404, Server="dCache/12.0.1"),
        ],
        ids=["12", "6", "by its header"],
    )
    def test_a_missing_file_is_none_and_a_missing_directory_an_error(self, answer):
        assert play(rest.stat(FRONT_API, "/x"), answer)[1] is None
        with pytest.raises(BadInputError):
            play(rest.children(FRONT_API, "/x"), answer)

    @pytest.mark.parametrize(
        "answer",
        [ok(status=404), httpx.Response(404, text="404 page not found"), ok({"message": "no Route matched"}, 404)],
        ids=["nothing", "Traefik", "Kong"],
    )
    def test_what_answers_while_the_frontend_is_away_does_not_know_what_is_missing(self, answer):
        for flow in (rest.stat(FRONT_API, "/x"), rest.children(FRONT_API, "/x")):
            with pytest.raises(TransientError, match="not in dCache's words"):
                play(flow, answer)

    def test_names_are_encoded_in_the_url(self):
        (request,), _ = play(rest.stat(FRONT_API, "/a b?/ü"), ok(status=404, Server="dCache/12.0.1"))
        assert request.url.raw_path.partition(b"?")[0] == b"/api/v1/namespace/base/a%20b%3F/%C3%BC"

    def test_without_frontend_the_extra_is_named(self):
        bare = rest.RestEndpoint(settings(extra={"frontend_url": ""}))
        with pytest.raises(DefinitionError, match="'frontend_url' is empty"):
            next(rest.user(bare))


class TestTape:
    def test_staging_is_asked_for_and_followed(self):
        (request,), identity = play(
            tape.stage(FRONT_API, ["/a"], disk_lifetime=timedelta(days=1)), ok({"requestId": "r"}, 201)
        )
        assert json.loads(request.content) == {"files": [{"path": "/base/a", "diskLifetime": "PT86400S"}]}
        files = [
            {"path": "/base/a", "state": "COMPLETED"},
            {"path": "/base/b", "state": "FAILED", "error": "tape broke"},
        ]
        status = play(tape.stage_status(FRONT_API, identity), ok({"files": files, "completedAt": 1}))[1]
        assert status.ended
        assert status.failed == ("/b",)
        assert status.errors == {"/b": "tape broke"}

    def test_an_unknown_state_means_keep_waiting(self):
        body = {"files": [{"path": "/a", "state": "ROBOT_ON_STRIKE"}]}
        status = play(tape.stage_status(FRONT_API, "r"), ok(body))[1]
        assert not status.ended
        assert not status.failed

    def test_more_paths_than_dcache_takes_are_refused(self):
        with pytest.raises(DefinitionError, match="1 to 500"):
            next(tape.stage(FRONT_API, ["/a"] * 501, disk_lifetime=timedelta(days=1)))
