# SPDX-License-Identifier: Apache-2.0
"""How requests to OSCAR authenticate: password, service token, OIDC access and refresh tokens, oidc-agent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, TransientError, bare_url, quoted
from airflow_provider_oscar.core.shapes import parse_json

#: Seconds before its end at which an access token is renewed.
_RENEW_BEFORE = 60.0
#: Seconds of an access token whose issuer does not say.
_LIFETIME = 300.0
#: What an issuer says of itself (RFC 6749, 4.1.2.1), and not of the request.
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
#: Seconds that oidc-agent has for an answer.
_AGENT_SECONDS = 20.0
#: Seconds an access token of oidc-agent is used before it is asked again.
_AGENT_LIFETIME = 300.0


def is_secure(url: str) -> bool:
    """Whether credentials may travel to this URL: https, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


class OverridableAuth(httpx.Auth):
    """Authentication that leaves a request alone that brings its own (or, empty, none).

    :param inner: authenticates the other requests.
    """

    def __init__(self, inner: httpx.Auth) -> None:
        self._inner = inner

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the credentials, unless the request has some."""
        own = request.headers.get("Authorization")
        if own is None:
            yield from self._inner.auth_flow(request)
            return
        if not own:
            del request.headers["Authorization"]
        yield request


class BearerAuth(httpx.Auth):
    """A token that does not change.

    :param token: an OIDC access token.
    :param display_name: words that name the connection.
    :param clock: seconds since the epoch.
    """

    def __init__(self, token: str, *, display_name: str, clock: Callable[[], float] = time.time) -> None:
        self._token = token.strip()
        self._display_name = display_name
        self._ends = _expiry(self._token)
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token.

        :raises DefinitionError: if it says itself that it has expired.
        """
        if request.headers.get("Authorization") == "":
            del request.headers["Authorization"]
            yield request
            return
        if self._ends is not None and self._clock() >= self._ends:
            at = datetime.fromtimestamp(self._ends, UTC).isoformat(timespec="seconds")
            raise DefinitionError(
                f"{self._display_name}: its oidc_token expired at {at}; put a new one there, or better a refresh_token "
                "with token_endpoint and client_id, which renews itself"
            )
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class ServiceTokenAuth(httpx.Auth):
    """The token of one service, which OSCAR takes for starting that service and for nothing else.

    :param token: of the service.
    :param display_name: words that name the connection.
    """

    def __init__(self, token: str, *, display_name: str) -> None:
        self._token = token.strip()
        self._display_name = display_name

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token.

        :raises DefinitionError: for a route that does not take it.
        """
        path = request.url.path
        if "/job/" in path or "/run/" in path or path.endswith("/auth"):
            request.headers["Authorization"] = f"Bearer {self._token}"
        elif path.endswith("/health"):
            request.headers.pop("Authorization", None)
        else:
            raise DefinitionError(
                f"{self._display_name} has a service token alone, which starts jobs of its service but can neither "
                f"list nor cancel them nor read anything else ({request.method} {path}); use login and password, or "
                "OIDC, there"
            )
        yield request


class _TokenStore:
    """Tokens that this process was given, so that a rotated refresh token is not lost with its hook."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exchanges: dict[str, threading.Lock] = {}
        self.found: dict[str, tuple[str, float, str]] = {}

    def exchange(self, key: str) -> threading.Lock:
        """Held while tokens are asked for, since an issuer that rotates takes a refresh token once."""
        with self._lock:
            return self._exchanges.setdefault(key, threading.Lock())


_TOKENS = _TokenStore()
#: Seconds between two polls whether another exchange has ended.
_EXCHANGE_PAUSE = 0.05


class OidcRefreshAuth(httpx.Auth):
    """OIDC: exchanges the refresh token for access tokens, before they end and once after a 401.

    What the issuer gave is shared by all hooks of this process: one exchange serves them all, and a refresh token
    that replaces the connection's (rotation) is used from then on.

    :param extra: ``refresh_token``, ``token_endpoint``, ``client_id`` and ``scopes`` of the connection.
    :param display_name: words that name the connection.
    :param tokens: what issuers gave to this process.
    """

    requires_response_body = True

    def __init__(self, extra: Mapping[str, object], *, display_name: str, tokens: _TokenStore = _TOKENS) -> None:
        self._endpoint = str(extra["token_endpoint"]).strip()
        self._refresh_token = str(extra["refresh_token"]).strip()
        self._form = {
            "grant_type": "refresh_token",
            "client_id": str(extra.get("client_id") or ""),
            "scope": str(extra.get("scopes") or ""),
        }
        self._display_name = display_name
        self._tokens = tokens
        identity = json.dumps([self._endpoint, self._refresh_token, self._form])
        self._key = hashlib.sha256(identity.encode()).hexdigest()
        if not is_secure(self._endpoint):
            raise DefinitionError(f"{display_name}: the token endpoint {bare_url(self._endpoint)!r} is not https")

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add an access token, and get a new one where needed."""
        refused = ""
        for _ in range(2 if self._prepared(request) else 0):
            with self._tokens.exchange(self._key):
                if (exchange := self._exchange(refused)) is not None:
                    answer = yield exchange
                    answer.read()
                    self._accept(answer)
            answer = yield self._with_token(request)
            if answer.status_code != 401:
                return
            refused = self._token
        if not request.headers.get("Authorization"):
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """The same without blocking the event loop."""
        refused = ""
        for _ in range(2 if self._prepared(request) else 0):
            lock = self._tokens.exchange(self._key)
            # Hooks of other threads wait for the same exchange, so that no event of one loop serves them.
            while not lock.acquire(blocking=False):  # noqa: ASYNC110
                await asyncio.sleep(_EXCHANGE_PAUSE)
            try:
                if (exchange := self._exchange(refused)) is not None:
                    answer = yield exchange
                    await answer.aread()
                    self._accept(answer)
            finally:
                lock.release()
            answer = yield self._with_token(request)
            if answer.status_code != 401:
                return
            refused = self._token
        if not request.headers.get("Authorization"):
            yield request

    @property
    def _token(self) -> str:
        return self._tokens.found[self._key][0]

    def _prepared(self, request: httpx.Request) -> bool:
        """Whether the request is to have a token."""
        if request.headers.get("Authorization") == "":
            del request.headers["Authorization"]
            return False
        return True

    def _with_token(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _exchange(self, refused: str) -> httpx.Request | None:
        """Return the request for a new token; None if there is one that was not refused."""
        token, until, refresh = self._tokens.found.get(self._key, ("", 0.0, self._refresh_token))
        if token and token != refused and time.monotonic() <= until - _RENEW_BEFORE:
            return None
        form = {name: value for name, value in {**self._form, "refresh_token": refresh}.items() if value}
        return httpx.Request("POST", self._endpoint, data=form, headers={"Accept": "application/json"})

    def _accept(self, answer: httpx.Response) -> None:
        """Keep what the issuer gave; its body may repeat the token, so it is not shown."""
        refresh = self._tokens.found.get(self._key, ("", 0.0, self._refresh_token))[2]
        try:
            found = parse_json(answer.content)
        except ValueError:
            found = None
        body = found if isinstance(found, dict) else {}
        token = body.get("access_token")
        if answer.is_success and isinstance(token, str) and token.strip():
            lifetime = body.get("expires_in")
            seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else _LIFETIME
            following = body.get("refresh_token")
            kept = following if isinstance(following, str) and following else refresh
            self._tokens.found[self._key] = (token.strip(), time.monotonic() + seconds, kept)
            return
        place = bare_url(self._endpoint)
        seen = f"{self._display_name}: the token endpoint {place!r} gave no access token (status {answer.status_code}"
        code = body.get("error")
        named = isinstance(code, str) and answer.status_code in (401, 403)
        if (named or answer.status_code == 400) and code not in _PASSING_ERRORS:
            named_code = f", {quoted(code)}" if isinstance(code, str) else ""
            raise DefinitionError(
                f"{seen}{named_code}); renew refresh_token, and check client_id and scopes (an issuer that takes a "
                "refresh token once serves one process alone: use oidc_agent_account there)"
            )
        # A proxy or an issuer that starts says anything but that.
        raise TransientError(f"{seen}); if that lasts, check that token_endpoint is the issuer's")


class OidcAgentAuth(httpx.Auth):
    """Access tokens of ``oidc-agent``, which runs on the worker (``oidc-token ACCOUNT``).

    :param account: short name of the account.
    :param display_name: words that name the connection.
    :param program: asks the agent; in the PATH of the worker.
    """

    def __init__(self, account: str, *, display_name: str, program: str = "oidc-token") -> None:
        self._account = account
        self._display_name = display_name
        self._program = program
        self._token = ""
        self._until = 0.0

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add a token."""
        if self._prepared(request):
            request.headers["Authorization"] = f"Bearer {self._ask()}"
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add a token without blocking the event loop."""
        if self._prepared(request):
            request.headers["Authorization"] = f"Bearer {await asyncio.to_thread(self._ask)}"
        yield request

    def _prepared(self, request: httpx.Request) -> bool:
        if request.headers.get("Authorization") == "":
            del request.headers["Authorization"]
            return False
        return True

    def _ask(self) -> str:
        if self._token and time.monotonic() < self._until:
            return self._token
        command = [self._program, "--time=360", "--", self._account]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_AGENT_SECONDS, check=False, text=True)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TransientError(
                f"{self._display_name}: oidc-agent cannot be asked for account {self._account!r} ({quoted(error)}); it "
                "has to run on this machine, with OIDC_SOCK in the environment of the worker"
            ) from error
        if done.returncode or not done.stdout.strip():
            raise DefinitionError(
                f"{self._display_name}: oidc-agent gave no token for account {self._account!r} "
                f"({quoted(done.stderr.strip())}); load it with `oidc-add {self._account}`"
            )
        self._token, self._until = done.stdout.strip(), time.monotonic() + _AGENT_LIFETIME
        return self._token


def _expiry(token: str) -> float | None:
    """Return the ``exp`` of a JWT in seconds since the epoch; None if it has none, or is of another form."""
    try:
        payload = token.split(".")[1]
        claims = parse_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None
