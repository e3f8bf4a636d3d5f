# SPDX-License-Identifier: Apache-2.0
"""The exceptions of the provider, sorted by what the caller does next.

::

    OscarProviderError
    ├── DefinitionError   (also a ValueError)  correct the DAG, the arguments or the connection
    │   └── AccessError                        the same, unless the server's own login is away: may be tried again
    ├── TransientError    (carries a delay)    try the same again later
    ├── PermanentError                         give up: the same attempt would fail the same way
    │   ├── BadInputError                      the object itself is at fault
    │   └── JobFailedError                     the job ran and failed, or could not be run
    ├── JobSkippedError                        nothing: the job itself said that there was nothing to do
    └── LostContactError                       the outcome is not known; look again before repeating

:func:`airflow_provider_oscar._airflow.airflow_errors` is the one place that turns these into what
Airflow's task runner understands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

# Airflow's page folds its log at these markers, wherever in a line they stand.
_GROUP = re.compile(r"::(?=(?:end)?group\b)|##(?=\[(?:end)?group\])")
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s'\"<>()]+", re.IGNORECASE)
#: Longest part of a foreign text (a response body, a log line) that is quoted in a message.
QUOTE_LIMIT = 256


class OscarProviderError(Exception):
    """Root of all errors raised by this provider."""

    #: Whether the place where a job runs is at fault, and not the job, so that another place may well do the work.
    target_fault: bool = False

    def of_target(self) -> Self:
        """Return the error, marked as the fault of the place where the job runs."""
        self.target_fault = True
        return self


class DefinitionError(OscarProviderError, ValueError):
    """What was written down is wrong: a DAG argument, a connection field, a service definition."""


class AccessError(DefinitionError):
    """Credentials were refused, or a right is missing.

    Servers say so as well while what they ask about logins is away, so one such answer does not decide: a task's
    ``retries`` apply to it.
    """


class TransientError(OscarProviderError):
    """The other side could not answer now; the same call may succeed later.

    :param message: what was attempted, where, and what was seen.
    :param delay: seconds the other side asked to wait (``Retry-After``), or None if it said nothing.
    """

    def __init__(self, message: str, *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class PermanentError(OscarProviderError):
    """Repeating the same attempt would fail the same way."""


class BadInputError(PermanentError):
    """The object cannot be processed: absent, truncated, changed meanwhile, or of the wrong form."""


class JobFailedError(PermanentError):
    """The job was refused, was cancelled, or ended without a manifest that proves success."""


class JobSkippedError(OscarProviderError):
    """The job ended with an exit code that marks its task as skipped; that is neither a success nor a failure."""


class LostContactError(OscarProviderError):
    """The job or answer vanished, so that neither success nor failure is proven."""


def quoted(text: object, limit: int = QUOTE_LIMIT) -> str:
    """Return foreign text fit for one line of a message or log: escaped, and cut at ``limit``.

    Object keys, file names and response bodies come from strangers; a newline in one of them must
    not start a log record of its own.
    """
    raw = text if isinstance(text, str) else str(text)
    shown = without_groups(repr(raw[:limit]))
    return shown if len(raw) <= limit else f"{shown}… ({len(raw)} characters)"


def without_groups(text: str) -> str:
    """Return text in which nothing begins or ends a group of Airflow's log: a backslash parts such markers.

    :param text: foreign text.
    """
    return _GROUP.sub(lambda found: f"{found[0][0]}\\{found[0][1]}", text)


def bare_url(url: str) -> str:
    """Return a URL fit for a message: without user, password, query and fragment.

    :param url: of a connection or of a stranger; what is not a URL stays but for these.
    """
    rest = re.split("[?#]", url, maxsplit=1)[0]
    scheme, marker, place = rest.partition("//")
    authority, slash, path = place.partition("/")
    return f"{scheme}{marker}{authority.rpartition('@')[2]}{slash}{path}" if marker else rest.rpartition("@")[2]


def bare_urls(text: object) -> str:
    """Return a text, such as an error of a library, with its URLs fit for a message, as of :func:`bare_url`.

    :param text: foreign text; what else it holds stays.
    """
    return _URL.sub(lambda found: bare_url(found[0]), str(text))


@contextmanager
def faults_of_target() -> Iterator[None]:
    """Mark errors as the fault of the place that is called."""
    try:
        yield
    except OscarProviderError as error:
        raise error.of_target() from error.__cause__


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as ``1 object`` and ``2 objects``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
