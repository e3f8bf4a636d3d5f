# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, one class per exit code of ``sysexits.h``; the message is the one line the user gets to see."""

from __future__ import annotations

import os
from typing import ClassVar


class PayloadError(Exception):
    """Base of the errors that end the program with one line instead of a traceback."""

    exit_code: ClassVar[int] = os.EX_SOFTWARE


class InputError(PayloadError):
    """The input file cannot be used: not HDF5, truncated, a dataset missing or misshapen, nothing to do in it."""

    exit_code = os.EX_DATAERR


class MissingInputError(PayloadError):
    """There is no readable input file at the given path."""

    exit_code = os.EX_NOINPUT


class OutputError(PayloadError):
    """The results cannot be written."""

    exit_code = os.EX_CANTCREAT


class SettingsError(PayloadError):
    """An option, an environment variable or a weights file is unusable."""

    exit_code = os.EX_CONFIG


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of a library's message, cut to ``limit`` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:limit]
