# SPDX-License-Identifier: Apache-2.0
"""Who may do what in the embedded dCache: passwords, bearer tokens, macaroons, and the brake on bad logins.

Macaroons have dCache's caveats and wire format, and can be narrowed by their bearer.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import math
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from oscar_testbed.fakes.dcache.macaroon import Macaroon
from oscar_testbed.faults import DCacheFaults

ACTIVITIES = frozenset({"LIST", "DOWNLOAD", "MANAGE", "UPLOAD", "DELETE", "READ_METADATA", "UPDATE_METADATA", "STAGE"})
_IDENTIFIER = "oscar/local"
_MAX_LIFETIME = timedelta(days=7)
_DEFAULT_LIFETIME = timedelta(days=1)
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_KINDS = frozenset({"home", "root", "path", "activity", "id", "before", "ip", "max-upload", "iid"})


class AccessError(Exception):
    """A request that is refused: 401 (who are you), 403 (not you), 429 (not so often) or 400.

    :param reason: what dCache says in the status line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, and the limits of the credential used.

    :param activities: what a macaroon allows; None for all.
    :param path: the request must be at or below it.
    :param expires: when the credential ends, in seconds since the epoch; None for never.
    """

    user: str
    uid: int
    activities: frozenset[str] | None = None
    path: str = "/"
    max_upload: int | None = None
    expires: float | None = None

    def allows(self, activity: str, path: str) -> bool:
        """Whether the credential allows an activity on a path; the way to an allowed path may be looked at."""
        if not _below(path, self.path) and not (activity == "READ_METADATA" and _below(self.path, path)):
            return False
        return self.activities is None or activity == "READ_METADATA" or activity in self.activities

    def require(self, activity: str, path: str) -> None:
        """Raise 403 unless :meth:`allows`."""
        if not self.allows(activity, path):
            raise AccessError(403, "Forbidden")


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
    _failures: dict[tuple[str, str], deque[float]] = field(default_factory=dict, repr=False)
    _barred: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)
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

    def barred(self, part: str, address: str) -> float:
        """Seconds for which one part of the server answers an address 429; 0 if it does not."""
        with self._lock:
            until = self._barred.get((part, address), 0.0)
            return max(0.0, until - self.clock()) if self.faults.rate_limit else 0.0

    def note_unauthorized(self, part: str, address: str) -> None:
        """Count a 401; the third within 20 s bars the address for 10 s, at the part that saw them."""
        now = self.clock()
        with self._lock:
            recent = self._failures.setdefault((part, address), deque(maxlen=3))
            recent.append(now)
            if len(recent) == 3 and now - recent[0] < 20:
                self._barred[part, address] = now + 10
                recent.clear()

    def authenticate(self, authorization: str, address: str) -> Principal:
        """Say who sent the ``Authorization`` header.

        :raises AccessError: 401.
        """
        scheme, _, value = authorization.partition(" ")
        principal: Principal | None = None
        if scheme.lower() == "basic":
            principal = self._by_password(value)
        elif scheme.lower() == "bearer":
            user, expires = self._tokens.get(value, ("", 0.0))
            principal = self._principal(user) if user and expires > self.clock() else self._by_macaroon(value, address)
        if principal is None:
            raise AccessError(401, "login failed")
        return principal

    def mint(self, principal: Principal, path: str, body: bytes, address: str) -> str:
        """Answer a macaroon request and return the token.

        Activities are not looked at, as by dCache: a word that is none makes a macaroon that nobody can use.

        :raises AccessError: 400 for a caveat that cannot be understood, or one that is too wide.
        """
        try:
            wanted: Any = json.loads(body) if body.strip() else {}
            caveats = [str(each) for each in wanted.get("caveats", [])]
            validity = wanted.get("validity")
        except (ValueError, AttributeError, TypeError) as error:
            raise AccessError(400, "Unable to parse JSON: not a macaroon request") from error
        if path.strip("/") and not _below(path, principal.path):
            raise AccessError(400, "Bad request path: Desired path not within existing path")
        limit = self._limit(principal, caveats, validity)
        kept = [each for each in caveats if _kind(each) != "before"]
        base = path.rstrip("/") or principal.path
        own = [f"iid:{secrets.token_urlsafe(6)}", f"id:{principal.uid};{principal.uid};{principal.user}"]
        own.append(f"before:{datetime.fromtimestamp(limit, UTC).isoformat().replace('+00:00', 'Z')}")
        if base != "/":
            own.append(f"path:{base}")
        if principal.max_upload is not None:
            own.append(f"max-upload:{principal.max_upload}")
        if principal.activities is not None:
            own.append("activity:" + ",".join(sorted(principal.activities)))
        location = f"Optional[{base}]"
        made = Macaroon.signed(self._secret, location=location, identifier=_IDENTIFIER, caveats=[*own, *kept])
        return made.serialized()

    def _limit(self, principal: Principal, caveats: Sequence[str], validity: object) -> float:
        """When a macaroon ends, in seconds since the epoch."""
        now = self.clock()
        longest = now + _MAX_LIFETIME.total_seconds()
        try:
            asked = [_instant(each.partition(":")[2]) for each in caveats if _kind(each) == "before"]
            if validity is not None:
                asked.append(now + parse_duration(str(validity)).total_seconds())
        except ValueError as error:
            what = "Duration" if "duration" in str(error) else "Instant"
            raise AccessError(400, f"Bad validity value: Text cannot be parsed to a {what}") from error
        if not asked:
            return min(principal.expires or now + _DEFAULT_LIFETIME.total_seconds(), longest)
        if min(asked) <= now:
            raise _bad("before: requested expiry in past")
        if min(asked) > longest:
            raise _bad("before: requested duration beyond maximum allowed (PT168H)")
        if principal.expires is not None and min(asked) > principal.expires:
            raise _bad("before: cannot extend session lifetime")
        return min(asked)

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
            macaroon = Macaroon.parsed(token)
            if macaroon.identifier != _IDENTIFIER or not macaroon.authentic(self._secret):
                return None
            return self._expanded(macaroon.caveats, address)
        except ValueError:
            return None

    def _expanded(self, caveats: Sequence[str], address: str) -> Principal:
        """What caveats leave of their owner's rights.

        :raises ValueError: if one does not hold.
        """
        limits = Principal("", 0)
        for caveat in caveats:
            kind, _, value = caveat.partition(":")
            if kind == "ip":
                _require_address(value, address)
            else:
                limits = _limited(limits, kind, value)
        if limits.user not in self.passwords or (limits.expires is not None and limits.expires <= self.clock()):
            raise ValueError("expired, or nobody's")
        return replace(limits, uid=self._principal(limits.user).uid)


def _limited(limits: Principal, kind: str, value: str) -> Principal:
    """What one more caveat leaves.

    :raises ValueError: if it cannot be understood.
    """
    match kind:
        case "id":
            return replace(limits, user=value.rpartition(";")[2])
        case "path":  # below the path so far
            return replace(limits, path=f"{limits.path.rstrip('/')}/{value.strip('/')}".rstrip("/") or "/")
        case "activity":
            return replace(limits, activities=_activities(value, limits.activities))
        case "max-upload":
            return replace(limits, max_upload=min(int(value), limits.max_upload or int(value)))
        case "before":
            return replace(limits, expires=min(_instant(value), limits.expires or math.inf))
        case "iid" | "home" | "root":
            return limits
    raise ValueError("unknown caveat")


def _require_address(value: str, address: str) -> None:
    """Refuse a caveat that is for other addresses.

    :raises ValueError: if it is.
    """
    networks = [ipaddress.ip_network(each.strip(), strict=False) for each in value.split(",")]
    if not any(ipaddress.ip_address(address) in each for each in networks):
        raise ValueError("for other addresses")


def attenuate(token: str, caveat: str) -> str:
    """Add a caveat to a macaroon without asking the server.

    :raises ValueError: if it is none.
    """
    return Macaroon.parsed(token).narrowed(caveat).serialized()


def _kind(caveat: str) -> str:
    """The kind of a caveat that is asked for.

    :raises AccessError: 400 if there is no such kind.
    """
    kind, colon, _ = caveat.partition(":")
    if not colon:
        raise _bad("Missing ':'")
    if kind not in _KINDS:
        raise _bad(f"Unknown caveat {kind}")
    return kind


def _bad(what: str) -> AccessError:
    return AccessError(400, f"Bad requested caveat: {what}")


def _activities(value: str, before: frozenset[str] | None) -> frozenset[str]:
    named = frozenset(value.split(","))
    if named - ACTIVITIES or (before is not None and named - before - {"READ_METADATA"}):
        raise ValueError("no such activity, or more than before")
    return named


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration of days to seconds, such as ``PT1H``.

    :raises ValueError: for anything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError("not a duration")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
