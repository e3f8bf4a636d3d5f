# SPDX-License-Identifier: Apache-2.0
"""Messages joined, encoded and decoded, in the order given: what DCNiOS calls alterations.

DCNiOS does it with NiFi's MergeContent and EncodeContent: the messages of a merged one are parted by a line feed, and
an encoding is one of base64, base32 and hexadecimal digits (RFC 4648; NiFi writes lower-case digits and reads both).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from airflow_provider_oscar.core.errors import BadInputError, DefinitionError, quoted

#: The step that joins all messages.
MERGE = "merge"
#: Encodings of the steps ``encode:<encoding>`` and ``decode:<encoding>``.
ENCODINGS = ("base64", "base32", "hex")

_ENCODE: Mapping[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base32": base64.b32encode,
    "hex": binascii.hexlify,
}
_DECODE: Mapping[str, Callable[[bytes], bytes]] = {
    "base64": lambda data: base64.b64decode(data, validate=True),
    "base32": lambda data: base64.b32decode(data, casefold=True),
    "hex": binascii.unhexlify,
}
#: What encoders put between lines, which is not part of what is encoded.
_BREAKS = b" \t\r\n"


class Step(NamedTuple):
    """One alteration.

    :param action: ``merge``, ``encode`` or ``decode``.
    :param encoding: of the last two.
    """

    action: str
    encoding: str = ""

    @classmethod
    def parse(cls, text: str) -> Step:
        """Read ``merge``, ``encode:base64``, ``decode:hex``…

        :raises DefinitionError: if it is anything else.
        """
        action, _, encoding = text.partition(":")
        if text == MERGE or (action in ("encode", "decode") and encoding in ENCODINGS):
            return cls(action, encoding)
        raise DefinitionError(
            f"an alteration is {quoted(text)}; expected 'merge', or 'encode:' or 'decode:' and one of "
            f"{', '.join(ENCODINGS)}"
        )


def altered(messages: Sequence[bytes], steps: Sequence[str]) -> bytes:
    """Return the one message that the steps make of several.

    :param messages: at least one.
    :param steps: each ``merge``, ``encode:<encoding>`` or ``decode:<encoding>``, applied in this order; what comes
        before ``merge`` is done to each message.
    :raises DefinitionError: if a step cannot be read, or several messages are left.
    :raises BadInputError: if a message is not of the encoding that a step decodes.
    """
    found = list(messages)
    for step in map(Step.parse, steps):
        if step.action == MERGE:
            found = [b"\n".join(found)]
        elif step.action == "encode":
            found = [_ENCODE[step.encoding](each) for each in found]
        else:
            found = [_decoded(each, step.encoding) for each in found]
    if len(found) != 1:
        raise DefinitionError(f"{len(found)} messages are left where one is sent; add the alteration 'merge'")
    return found[0]


def _decoded(message: bytes, encoding: str) -> bytes:
    try:
        return _DECODE[encoding](message.translate(None, _BREAKS))
    except ValueError as error:  # binascii.Error is one
        raise BadInputError(
            f"a message is not {encoding}: {quoted(message[:80].decode('utf-8', 'replace'))} ({error})"
        ) from error
