# SPDX-License-Identifier: Apache-2.0
"""What can go wrong beside the command, sorted by whether doing it again can help."""

from __future__ import annotations

#: Exit codes of the supervisor itself, after ``sysexits.h`` and shells.
EXIT_INPUT = 66  # EX_NOINPUT: the object is gone or another one
EXIT_UNSTAGED = 73  # EX_CANTCREAT: something here cannot be staged, however often it is tried
EXIT_IO = 74  # EX_IOERR: staging failed, and another try may not
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: how a command says that it saved its state and wants to be continued
EXIT_ACCESS = 77  # EX_NOPERM: the store refuses the job's URL or token
EXIT_SPEC = 78  # EX_CONFIG: the job specification cannot be read
EXIT_TIMEOUT = 124  # as timeout(1); only where the command itself reported success
EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 126, 127  # as a shell has it

STAGE_IN, RUN, STAGE_OUT = "stage-in", "run", "stage-out"
#: Where a process of a batch is while it has no object.
BETWEEN = "between"


class StageError(Exception):
    """Something failed beside the command; becomes the manifest's ``error`` and the exit code.

    :param message: one sentence for the people who read it.
    :param code: exit code of the supervisor, unless the command has failed already.
    :param reason: one word for programs, such as ``access-refused``.
    :param permanent: doing the whole job again would fail in the same way.
    """

    def __init__(
        self, message: str, code: int = EXIT_UNSTAGED, reason: str = "rejected", permanent: bool = True
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.permanent = permanent


class TransientError(StageError):
    """This attempt failed, another one may not.

    :param delay: seconds the server asked us to wait, or None.
    """

    def __init__(
        self, message: str, code: int = EXIT_IO, reason: str = "unreachable", delay: float | None = None
    ) -> None:
        super().__init__(message, code, reason, permanent=False)
        self.delay = delay


class RefusedError(StageError):
    """The store refuses; one such answer decides nothing, since a replica without the new key may have given it."""


class Interrupted(BaseException):
    """A signal asked to stop before the command was started; carries the signal's name and the exit code."""
