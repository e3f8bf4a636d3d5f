# SPDX-License-Identifier: Apache-2.0
"""OSCAR's logins, and what is sent again by itself."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.hooks.oscar.auth import (
    BearerAuth,
    OidcAgentAuth,
    OidcRefreshAuth,
    ServiceTokenAuth,
    _TokenStore,
)
from airflow_provider_oscar.hooks.oscar.repeat import JOB_ID_HEADER, AsyncRepeatingTransport, RepeatingTransport


def jwt(**claims) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.x"


def sent(auth, path="/system/info", transport=None) -> str | None:
    seen = []

    def handler(request):
        if transport is not None and request.url.host != "oscar.test":
            return transport.handle_request(request)
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200)

    with httpx.Client(auth=auth, transport=httpx.MockTransport(handler)) as client:
        client.get(f"https://oscar.test{path}")
    return seen[0]


def test_token_that_has_expired_is_called_expired():
    token = jwt(exp=1000)
    assert sent(BearerAuth(token, display_name="c", clock=lambda: 999)) == f"Bearer {token}"
    with pytest.raises(DefinitionError, match="expired at 1970-01-01T00:16:40.*refresh_token"):
        sent(BearerAuth(token, display_name="c", clock=lambda: 1000))


@pytest.mark.parametrize("token", ["opaque", "a.b.c", jwt(sub="x"), jwt(exp="soon")])
def test_token_without_an_end_is_used(token):
    assert sent(BearerAuth(token, display_name="c")) == f"Bearer {token}"


def test_service_token_is_used_where_it_works_and_refused_elsewhere():
    auth = ServiceTokenAuth("ab" * 32, display_name="connection 'c'")
    assert sent(auth, "/job/svc") == f"Bearer {'ab' * 32}"
    assert sent(auth, "/run/svc") == f"Bearer {'ab' * 32}"
    with pytest.raises(DefinitionError, match=r"service token alone.*/system/services.*login and password"):
        sent(auth, "/system/services")


def test_rotated_refresh_token_is_kept_for_the_next_hook():
    exchanged = []

    def handler(request):
        if request.url.host == "issuer.test":
            exchanged.append(dict(httpx.QueryParams(request.content.decode()))["refresh_token"])
            number = len(exchanged)
            return httpx.Response(200, json={"access_token": f"t{number}", "refresh_token": f"r{number}"})
        return httpx.Response(401 if request.headers["authorization"] == "Bearer t1" else 200)

    extra = {"refresh_token": "r0", "token_endpoint": "https://issuer.test/token"}
    tokens = _TokenStore()
    for _ in range(3):
        auth = OidcRefreshAuth(extra, display_name="c", tokens=tokens)
        with httpx.Client(auth=auth, transport=httpx.MockTransport(handler)) as client:
            assert client.get("https://oscar.test/system/info").status_code == 200
    assert exchanged == ["r0", "r1"]


class Issuer:
    """Takes each refresh token once, as one with rotation does, and needs some time for it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.good, self.exchanges = "r0", 0

    def __call__(self, request):
        if request.url.host != "issuer.test":
            return httpx.Response(200, text=request.headers["authorization"])
        with self.lock:
            given = dict(httpx.QueryParams(request.content.decode()))["refresh_token"]
            if given != self.good:
                return httpx.Response(400, json={"error": "invalid_grant"})
            self.exchanges += 1
            self.good = f"r{self.exchanges}"
            return httpx.Response(200, json={"access_token": f"t{self.exchanges}", "refresh_token": self.good})


ROTATING = {"refresh_token": " r0\n", "token_endpoint": "https://issuer.test/token"}


def test_many_threads_use_a_refresh_token_once():
    issuer, tokens, together = Issuer(), _TokenStore(), threading.Barrier(8)

    def ask(_):
        auth = OidcRefreshAuth(ROTATING, display_name="c", tokens=tokens)
        together.wait()
        with httpx.Client(auth=auth, transport=httpx.MockTransport(issuer)) as client:
            return client.get("https://oscar.test/system/info").text

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"Bearer t1"}
    assert issuer.exchanges == 1


def test_many_triggers_of_an_event_loop_use_a_refresh_token_once():
    issuer, tokens = Issuer(), _TokenStore()

    async def slowly(request):
        await asyncio.sleep(0)
        return issuer(request)

    async def ask():
        auth = OidcRefreshAuth(ROTATING, display_name="c", tokens=tokens)
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(slowly)) as client:
            return (await client.get("https://oscar.test/system/info")).text

    async def all_of_them():
        return await asyncio.gather(*(ask() for _ in range(8)))

    assert set(asyncio.run(all_of_them())) == {"Bearer t1"}
    assert issuer.exchanges == 1


def test_a_cancelled_exchange_does_not_block_the_next():
    issuer, tokens = Issuer(), _TokenStore()

    async def never(request):
        if request.url.host == "issuer.test":
            await asyncio.Event().wait()

    async def ask(handler):
        auth = OidcRefreshAuth(ROTATING, display_name="c", tokens=tokens)
        async with httpx.AsyncClient(auth=auth, transport=httpx.MockTransport(handler)) as client:
            return (await client.get("https://oscar.test/system/info")).text

    async def one_after_the_other():
        hanging = asyncio.create_task(ask(never))
        await asyncio.sleep(0)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)

        async def served(request):
            return issuer(request)

        return await ask(served)

    assert asyncio.run(one_after_the_other()) == "Bearer t1"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"error": "invalid_grant"}', DefinitionError),
        (401, '{"error": "invalid_client"}', DefinitionError),
        (400, "<html>no</html>", DefinitionError),
        (400, '{"error": "temporarily_unavailable"}', TransientError),
        (401, "", TransientError),
        (403, "<html>Forbidden</html>", TransientError),
        (404, "404 page not found", TransientError),
        (302, "", TransientError),
        (429, "", TransientError),
        (503, '{"error": "server_error"}', TransientError),
        (200, "<html>log in</html>", TransientError),
        (200, '{"access_token": null}', TransientError),
        (200, '["t"]', TransientError),
    ],
)
def test_only_what_an_issuer_says_of_the_request_itself_is_final(status, body, kind):
    auth = OidcRefreshAuth({**ROTATING, "refresh_token": "secret-r"}, display_name="c", tokens=_TokenStore())
    server = httpx.MockTransport(lambda request: httpx.Response(status, text=body))
    with (
        httpx.Client(auth=auth, transport=server) as client,
        pytest.raises(kind, match="gave no access token") as raised,
    ):
        client.get("https://oscar.test/system/info")
    assert "secret-r" not in str(raised.value)


@pytest.mark.parametrize("lifetime", [3600, None, "3600", 0, -5, [1]])
def test_an_odd_lifetime_of_a_token_is_the_usual_one(lifetime):
    asked = []

    def server(request):
        asked.append(request.url.host)
        return httpx.Response(200, json={"access_token": " t\n", "expires_in": lifetime})

    auth = OidcRefreshAuth(ROTATING, display_name="c", tokens=_TokenStore())
    assert [sent(auth, transport=httpx.MockTransport(server)) for _ in range(2)] == ["Bearer t", "Bearer t"]
    assert asked.count("issuer.test") == 1


def test_white_space_around_a_token_that_was_pasted_is_left_out():
    assert sent(BearerAuth(" abc\n", display_name="c")) == "Bearer abc"
    assert sent(ServiceTokenAuth("abc\r\n", display_name="c"), "/job/svc") == "Bearer abc"


def test_oidc_agent_is_asked_once(tmp_path):
    program = tmp_path / "oidc-token"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho token-of-agent\n')
    program.chmod(0o755)
    auth = OidcAgentAuth("egi", display_name="c", program=str(program))
    assert [sent(auth), sent(auth)] == ["Bearer token-of-agent"] * 2
    assert (tmp_path / "calls").read_text().splitlines() == ["--time=360 -- egi"]


def test_oidc_agent_that_does_not_know_the_account_is_said(tmp_path):
    program = tmp_path / "oidc-token"
    program.write_text("#!/bin/sh\necho no such account >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(DefinitionError, match="no such account.*oidc-add egi"):
        sent(OidcAgentAuth("egi", display_name="c", program=str(program)))


class Server:
    """Answers with what it was given, one after the other, the last one forever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = 0

    def __call__(self, request):
        self.seen += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return httpx.Response(found[0], text=found[1], headers=dict(found[2:]))


JOB = ("POST", "/job/svc", {JOB_ID_HEADER: "x"})
OK = (200, "")


@pytest.mark.parametrize(
    ("request_line", "answers", "status", "seen"),
    [
        (("GET", "/system/info", {}), [(503, ""), OK], 200, 2),
        (("GET", "/system/info", {}), [httpx.ReadError("gone"), OK], 200, 2),
        (("GET", "/system/info", {}), [(401, ""), OK], 200, 2),
        (("GET", "/system/info", {}), [(401, "")], 401, 3),
        (("GET", "/system/info", {}), [(404, "")], 404, 1),
        (("GET", "/system/logs/svc", {}), [(500, "")], 500, 1),
        (("GET", "/system/info", {}), [(503, "")], 503, 6),
        (JOB, [(502, ""), (500, 'jobs "x" already exists')], 500, 2),
        (JOB, [httpx.ConnectError("no"), (201, "")], 201, 2),
        (("POST", "/job/svc", {}), [(502, ""), (201, "")], 502, 1),
        (("POST", "/system/services", {}), [(502, ""), (201, "")], 502, 1),
        (("DELETE", "/system/logs/svc/x", {}), [(403, ""), (204, "")], 403, 1),
    ],
)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_only_what_may_be_sent_twice_is_sent_again(request_line, answers, status, seen, way):
    method, path, headers = request_line
    server, pauses = Server(*answers), []

    async def apause(seconds):
        pauses.append(seconds)

    async def ask():
        inner = httpx.MockTransport(server)
        async with httpx.AsyncClient(transport=AsyncRepeatingTransport(inner, sleep=apause)) as client:
            return await client.request(method, f"https://oscar.test{path}", headers=headers)

    if way == "async":
        answer = asyncio.run(ask())
    else:
        with httpx.Client(transport=RepeatingTransport(httpx.MockTransport(server), sleep=pauses.append)) as client:
            answer = client.request(method, f"https://oscar.test{path}", headers=headers)
    assert (answer.status_code, server.seen, len(pauses)) == (status, seen, seen - 1)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body of some chunks after which the connection is gone."""

    def __init__(self, *chunks):
        self.chunks = chunks

    def __iter__(self):
        yield from self.chunks
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self):
        for chunk in iter(self):
            yield chunk


@pytest.mark.parametrize(
    ("chunks", "whole"), [((b'{"jo',), True), ((), True), ((b"x" * 700_000, b"y" * 700_000, b"z"), False)]
)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_that_breaks_off_counts_as_lost_unless_it_is_too_large_to_hold(way, chunks, whole):
    asked, sent = [], []

    def server(request):
        asked.append(request)
        return httpx.Response(200, stream=Broken(*chunks)) if len(asked) == 1 else httpx.Response(200, text="all")

    async def nothing(seconds):
        """Time passes."""

    async def read(client):
        async with client, client.stream("GET", "https://oscar.test/system/logs/svc/job") as answer:
            async for chunk in answer.aiter_bytes():
                sent.append(chunk)

    def ask():
        if way == "async":
            transport = AsyncRepeatingTransport(httpx.MockTransport(server), sleep=nothing)
            asyncio.run(read(httpx.AsyncClient(transport=transport)))
            return
        with (
            httpx.Client(transport=RepeatingTransport(httpx.MockTransport(server), sleep=lambda _: None)) as client,
            client.stream("GET", "https://oscar.test/system/logs/svc/job") as answer,
        ):
            sent.extend(answer.iter_bytes())

    if whole:
        ask()
        assert (b"".join(sent), len(asked)) == (b"all", 2)
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            ask()
        assert (b"".join(sent), len(asked)) == (b"".join(chunks), 1)


def test_wish_of_the_server_to_wait_is_granted_within_bounds():
    server, pauses = Server((429, "", ("Retry-After", "3")), (429, "", ("Retry-After", "999")), OK), []
    with httpx.Client(transport=RepeatingTransport(httpx.MockTransport(server), sleep=pauses.append)) as client:
        assert client.get("https://oscar.test/").status_code == 200
    assert pauses == [3.0, 10.0]
