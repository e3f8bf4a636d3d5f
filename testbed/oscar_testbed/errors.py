# SPDX-License-Identifier: Apache-2.0
"""The exceptions of the test bed, and how foreign text is shown in them."""

from __future__ import annotations

_QUOTE_LIMIT = 256


class PlatformError(Exception):
    """A component cannot be started, ended by itself or does not answer."""


class RejectedError(PlatformError, ValueError):
    """What a component was asked for is not valid or is refused: an argument, a batch script, an object."""


class MissingPrerequisite(Exception):  # noqa: N818 - a state of the machine, not a fault
    """The machine lacks something; the message says what, and what to do about it.

    :param part: name of what is missing, for pytest's option ``--require``.
    """

    def __init__(self, message: str, *, part: str = "") -> None:
        super().__init__(message)
        self.part = part


def quoted(text: object, limit: int = _QUOTE_LIMIT) -> str:
    """Return foreign text fit for one line of a message: escaped, and cut at ``limit`` characters."""
    raw = text if isinstance(text, str) else str(text)
    shown = repr(raw[:limit])
    return shown if len(raw) <= limit else f"{shown}… ({len(raw)} characters)"
