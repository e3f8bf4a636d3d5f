# SPDX-License-Identifier: Apache-2.0
"""Headers that cannot be sent are told without their values, which mostly are credentials.

h11 and http.client quote a value that they refuse. A token that was pasted with its line end would be in the task's
log, where nobody hides it: Airflow masks it as the connection has it, and the error shows it as Python writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httpcore

from airflow_provider_oscar.core.errors import DefinitionError

#: What h11 and http.client refuse between them.
_UNSENDABLE = re.compile(rb"[\0\r\n\v\f]|\A[ \t]|[ \t]\Z")


class UnsendableHeaderError(httpcore.LocalProtocolError, DefinitionError):
    """A header whose value no request can hold; raised among what the HTTP libraries raise.

    :param name: of the header.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the header {name!r} cannot be sent: its value holds a line end, or a blank at its beginning or end; "
            "enter login, password or token of the connection again, without it"
        )


def require_sendable(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request before a library does.

    :param headers: names and values.
    :raises UnsendableHeaderError: naming the first header that cannot be sent.
    """
    for name, value in headers:
        if _UNSENDABLE.search(value):
            raise UnsendableHeaderError(name.decode("ascii", "replace"))
