# SPDX-License-Identifier: Apache-2.0
"""Macaroons in libmacaroons' first binary format, as dCache hands them out: packets, base64 without padding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

_KEY = b"macaroons-key-generator"


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A token whose bearer can narrow it without asking.

    :param location: a hint for people.
    :param identifier: says which secret it was signed with.
    """

    location: str
    identifier: str
    caveats: tuple[str, ...]
    signature: bytes

    @classmethod
    def signed(cls, secret: bytes, *, location: str, identifier: str, caveats: Sequence[str]) -> Self:
        """Make one."""
        key = hmac.new(_KEY, secret, hashlib.sha256).digest()
        made = cls(location, identifier, (), _sign(key, identifier))
        for caveat in caveats:
            made = made.narrowed(caveat)
        return made

    def narrowed(self, caveat: str) -> Self:
        """Add a caveat; only the signature is needed."""
        return replace(self, caveats=(*self.caveats, caveat), signature=_sign(self.signature, caveat))

    def authentic(self, secret: bytes) -> bool:
        """Whether it was signed with the secret and nothing but narrowed since."""
        expected = self.signed(secret, location=self.location, identifier=self.identifier, caveats=self.caveats)
        return hmac.compare_digest(expected.signature, self.signature)

    def serialized(self) -> str:
        """The text that is sent."""
        packets = [("location", self.location.encode()), ("identifier", self.identifier.encode())]
        packets += [("cid", caveat.encode("utf-8", "surrogateescape")) for caveat in self.caveats]
        packets.append(("signature", self.signature))
        return base64.urlsafe_b64encode(b"".join(_packet(*each) for each in packets)).decode().rstrip("=")

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Read the text.

        :raises ValueError: if it is none.
        """
        try:
            data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError("not base64") from error
        location, identifier, caveats, signature = "", "", [], b""
        while data:
            length = int(data[:4], 16)
            name, blank, value = data[4:length].partition(b" ")
            if not 4 < length <= len(data) or not blank or not value.endswith(b"\n"):
                raise ValueError("not a macaroon")
            value, data = value[:-1], data[length:]
            match name:
                case b"location":
                    location = value.decode()
                case b"identifier":
                    identifier = value.decode()
                case b"cid":
                    caveats.append(value.decode("utf-8", "surrogateescape"))
                case b"signature":
                    signature = value
                case _:
                    raise ValueError("a packet of another kind")
        if not identifier or len(signature) != 32 or data:
            raise ValueError("incomplete")
        return cls(location, identifier, tuple(caveats), signature)


def _packet(name: str, value: bytes) -> bytes:
    return b"%04x" % (4 + len(name) + 1 + len(value) + 1) + name.encode() + b" " + value + b"\n"


def _sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
