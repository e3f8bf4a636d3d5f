# SPDX-License-Identifier: Apache-2.0
"""Who may do what in the embedded dCache: passwords, bearer tokens, macaroons, and the brake on bad logins.

The macaroons have dCache's caveats and can be attenuated by their holder, but a wire form of our own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from oscar_testbed.faults import DCacheFaults

ACTIVITIES = frozenset({"LIST", "DOWNLOAD", "MANAGE", "UPLOAD", "DELETE", "READ_METADATA", "UPDATE_METADATA", "STAGE"})
_MACAROON_PREFIX = "local1."
_MAX_LIFETIME = timedelta(days=7)
_DEFAULT_LIFETIME = timedelta(days=1)
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


class AccessError(Exception):
    """A request that is refused: 401 (who are you), 403 (not you), 429 (not so often) or 400."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, and the limits of the credential used.

    :param activities: what a macaroon allows; None for all.
    :param paths: the request must be at or below each of them.
    """

    user: str
    uid: int
    activities: frozenset[str] | None = None
    paths: tuple[str, ...] = ()
    max_upload: int | None = None

    def allows(self, activity: str, path: str) -> bool:
        """Whether the credential allows an activity on a path; the way to an allowed path may be looked at."""
        inside = all(_below(path, limit) for limit in self.paths)
        on_the_way = activity == "READ_METADATA" and all(
            _below(limit, path) or _below(path, limit) for limit in self.paths
        )
        if not inside and not on_the_way:
            return False
        return self.activities is None or activity == "READ_METADATA" or activity in self.activities

    def require(self, activity: str, path: str) -> None:
        """Raise 403 unless :meth:`allows`."""
        if not self.allows(activity, path):
            raise AccessError(403, f"Permission denied: {activity} is not allowed there")


def _below(path: str, limit: str) -> bool:
    base = limit.rstrip("/")
    return path.rstrip("/") == base or path.startswith(base + "/") or not base


@dataclass
class Access:
    """The users, tokens and macaroon secret of one dCache, all random.

    :param faults: may switch the brake off.
    :param passwords: password by user name.
    """

    faults: DCacheFaults
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    clock: Callable[[], float] = time.time
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)
    _failures: dict[str, deque[float]] = field(default_factory=dict, repr=False)
    _barred: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add_user(self, name: str) -> str:
        """Make a user and return the password."""
        self.passwords[name] = secrets.token_urlsafe(18)
        return self.passwords[name]

    def issue_token(self, user: str, lifetime: timedelta = timedelta(hours=1)) -> str:
        """Return an opaque bearer token, as an identity provider would."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (user, self.clock() + lifetime.total_seconds())
        return token

    def barred(self, address: str) -> float:
        """Seconds for which an address is answered 429; 0 if it is not."""
        with self._lock:
            return max(0.0, self._barred.get(address, 0.0) - self.clock()) if self.faults.rate_limit else 0.0

    def note_unauthorized(self, address: str) -> None:
        """Count a 401; the third within 20 s bars the address for 10 s."""
        now = self.clock()
        with self._lock:
            recent = self._failures.setdefault(address, deque(maxlen=3))
            recent.append(now)
            if len(recent) == 3 and now - recent[0] < 20:
                self._barred[address] = now + 10
                recent.clear()

    def authenticate(self, authorization: str, address: str) -> Principal:
        """Say who sent the ``Authorization`` header.

        :raises AccessError: 401.
        """
        scheme, _, value = authorization.partition(" ")
        principal: Principal | None = None
        if scheme.lower() == "basic":
            principal = self._by_password(value)
        elif scheme.lower() == "bearer" and value.startswith(_MACAROON_PREFIX):
            principal = self._by_macaroon(value, address)
        elif scheme.lower() == "bearer":
            user, expires = self._tokens.get(value, ("", 0.0))
            principal = self._principal(user) if user and expires > self.clock() else None
        if principal is None:
            raise AccessError(401, "Permission denied")
        return principal

    def mint(self, principal: Principal, path: str, body: bytes, address: str) -> str:
        """Answer a macaroon request (storage.md 3) and return the token.

        :raises AccessError: 400 for a caveat that cannot be understood, 401/403 for anonymous or too wide ones.
        """
        try:
            wanted: Any = json.loads(body) if body.strip() else {}
            caveats = [str(each) for each in wanted.get("caveats", [])]
            lifetime = parse_duration(str(wanted["validity"])) if "validity" in wanted else _DEFAULT_LIFETIME
        except (ValueError, AttributeError, TypeError) as error:
            raise AccessError(400, "Bad request: not a macaroon request") from error
        before = datetime.fromtimestamp(self.clock(), UTC) + min(lifetime, _MAX_LIFETIME)
        inherited = [f"path:{limit}" for limit in principal.paths]
        if principal.activities is not None:
            inherited.append("activity:" + ",".join(sorted(principal.activities)))
        if principal.max_upload is not None:
            inherited.append(f"max-upload:{principal.max_upload}")
        if path.strip("/"):
            inherited.append(f"path:{path}")
        token = self._chain(principal.user, [*inherited, f"before:{before.isoformat()}"])
        for caveat in caveats:
            token = attenuate(token, caveat)
        self._read_caveats(self._principal(principal.user), _unpack(token)[1], address, check=False)
        return token

    def _by_password(self, value: str) -> Principal | None:
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return None
        name = name.partition("#")[0]  # "user#role": asserted roles change nothing here
        known = self.passwords.get(name)
        if known is None or not hmac.compare_digest(known.encode(), password.encode()):
            return None
        return self._principal(name)

    def _principal(self, name: str) -> Principal:
        return Principal(name, 1000 + sorted(self.passwords).index(name))

    def _by_macaroon(self, token: str, address: str) -> Principal | None:
        try:
            user, caveats, signature = _unpack(token)
        except ValueError:
            return None
        expected = _unpack(self._chain(user, caveats))[2]
        if user not in self.passwords or not hmac.compare_digest(expected, signature):
            return None
        try:
            return self._read_caveats(self._principal(user), caveats, address, check=True)
        except AccessError:
            return None

    def _chain(self, user: str, caveats: Sequence[str]) -> str:
        signature = _sign(self._secret, user)
        for caveat in caveats:
            signature = _sign(signature, caveat)
        return _pack(user, caveats, signature)

    def _read_caveats(self, who: Principal, caveats: Sequence[str], address: str, *, check: bool) -> Principal:
        activities, paths, max_upload = who.activities, who.paths, who.max_upload
        for caveat in caveats:
            kind, _, value = caveat.partition(":")
            if kind == "activity":
                named = frozenset(value.split(","))
                if named - ACTIVITIES:
                    raise AccessError(400, "Bad caveat: unknown activity")
                activities = named if activities is None else activities & named
            elif kind == "path":
                paths = (*paths, value)
            elif kind == "max-upload":
                max_upload = min(int(value), max_upload if max_upload is not None else int(value))
            else:
                self._check_caveat(kind, value, address, check=check)
        return Principal(who.user, who.uid, activities, paths, max_upload)

    def _check_caveat(self, kind: str, value: str, address: str, *, check: bool) -> None:
        if kind == "before":
            try:
                limit = datetime.fromisoformat(value).timestamp()
            except ValueError as error:
                raise AccessError(400, "Bad caveat: not a time") from error
            if check and limit <= self.clock():
                raise AccessError(401, "the macaroon has expired")
        elif kind == "ip":
            import ipaddress

            try:
                networks = [ipaddress.ip_network(each.strip()) for each in value.split(",")]
            except ValueError as error:
                raise AccessError(400, "Bad caveat: not a network") from error
            if check and not any(ipaddress.ip_address(address) in each for each in networks):
                raise AccessError(401, "the macaroon is for other addresses")
        elif kind not in ("id", "iid"):
            raise AccessError(400, "Bad caveat: unknown kind")


def attenuate(token: str, caveat: str) -> str:
    """Add a caveat to a macaroon without asking the server.

    :raises ValueError: if it is not one of ours.
    """
    user, caveats, signature = _unpack(token)
    return _pack(user, [*caveats, caveat], _sign(signature, caveat))


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration of days to seconds, such as ``PT1H``.

    :raises ValueError: for anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError("not a duration")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _pack(user: str, caveats: Sequence[str], signature: bytes) -> str:
    body = json.dumps({"user": user, "caveats": list(caveats), "signature": signature.hex()}).encode()
    return _MACAROON_PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")


def _unpack(token: str) -> tuple[str, list[str], bytes]:
    encoded = token.removeprefix(_MACAROON_PREFIX)
    try:
        body: Any = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        return str(body["user"]), [str(each) for each in body["caveats"]], bytes.fromhex(body["signature"])
    except (KeyError, TypeError) as error:
        raise ValueError("not a macaroon of this platform") from error
