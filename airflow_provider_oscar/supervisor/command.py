# SPDX-License-Identifier: Apache-2.0
"""The user's command: started in a session of its own, signalled as a whole, reaped with what it cost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time

from airflow_provider_oscar.supervisor import usage
from airflow_provider_oscar.supervisor.errors import (
    BETWEEN,
    EXIT_CANNOT_RUN,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_TIMEOUT,
    RUN,
    STAGE_IN,
    STAGE_OUT,
    Interrupted,
    StageError,
)
from airflow_provider_oscar.supervisor.joblog import JobLog, OutputPump
from airflow_provider_oscar.supervisor.text import encoded, quoted, say, setting

PR_SET_DUMPABLE = 4
#: What SLURM's ``--signal=B:USR1@60`` sends, and what else may announce the end.
CHECKPOINT_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
#: Seconds that a command has to set up its handlers; a signal that comes before, and does not stop it, waits so long.
STARTUP = 30.0
#: Seconds between two polls at whether it has.
STARTUP_TICK = 0.2
#: What is said of a command of which the kernel ended a process. A pod says so of itself alone, and OSCAR of none.
OUT_OF_MEMORY = "the kernel ended a process of the command, which ran out of memory"


def hide_from_others() -> bool:
    """Forbid other processes of this user to read our memory, environment and open files; return whether it worked.

    The command runs as the same user, and our memory holds URLs and the key that proves its result.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return bool(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    return False


class Signals:
    """What arrives while we work: kept for the loop that forwards it, or an end to the staging in.

    While outputs go out nothing stops us; the platform will kill us if it must.
    """

    FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, *CHECKPOINT_SIGNALS)
    STOP = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, stage: str = STAGE_IN) -> None:
        self.stage = stage
        self.received: list[int] = []
        #: What came between two objects of a batch; it is for the next one.
        self.held: list[int] = []
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        # A signal writes into the pipe, so that the loop wakes at once; SIGCHLD needs a handler to count.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self.FORWARDED:
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def begin(self) -> None:
        """Begin with the staging in.

        :raises Interrupted: if what came before says so.
        """
        self.stage = STAGE_IN
        while self.held:
            self._handle(self.held.pop(0), None)

    def _handle(self, number: int, frame: object) -> None:
        if self.stage == BETWEEN:
            self.held.append(number)
        elif self.stage == STAGE_IN and number in self.STOP:
            self.stage = STAGE_OUT
            raise Interrupted(signal.Signals(number).name, 128 + number)
        elif self.stage == RUN or (self.stage == STAGE_IN and number not in self.STOP):
            self.received.append(number)  # what comes too early is the command's as soon as there is one
        elif number in self.STOP:
            say(f"{signal.Signals(number).name} received while staging out; finishing that first")

    def wait(self, seconds: float, also: tuple[int, ...] = ()) -> None:
        """Sleep until a signal or a child's end, at most ``seconds``.

        :param also: descriptors that end it as well when there is something to read.
        """
        ready, _, _ = select.select([self._reader, *also], [], [], min(max(seconds, 0.0), 60.0))
        with contextlib.suppress(BlockingIOError):
            while self._reader in ready and os.read(self._reader, 1024):
                pass


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def start(
    command: list[str], environment: dict[bytes, bytes], output: int, source: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start the command; standard output and error go where ``output`` leads, standard input comes from ``source``.

    :raises StageError: if it cannot be run.
    """
    try:
        words = [encoded(word) for word in command]
        # A session of its own is a process group of its own, which signals reach as a whole. Our descriptors close
        # by themselves on exec; listing them, which close_fds does, is forbidden to a process nobody may look into.
        return subprocess.Popen(
            words,
            env=environment,
            stdin=source,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=False,
        )
    except FileNotFoundError as error:
        what = f"command not found: {quoted(command[0])}, or the interpreter its first line names"
        raise StageError(
            f"{what}; check the image and the command of the task", EXIT_NOT_FOUND, "command-not-found"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StageError(f"cannot run {quoted(command[0])}: {reason}", EXIT_CANNOT_RUN, "cannot-run") from error


class Run:
    """One run of the command, from its start to its end.

    :param timeout: seconds it may take, or None.
    :param grace: seconds between asking it to stop and killing it.
    """

    def __init__(self, signals: Signals, log: JobLog, timeout: float | None, grace: float | None) -> None:
        self._signals, self._log = signals, log
        self._timeout = timeout
        self._grace = setting("KILL_GRACE", 10.0) if grace is None else grace
        self.exit_code = 0
        self.stopped: StageError | None = None
        #: Name of the last checkpoint or stop signal that was forwarded.
        self.interrupted = ""
        self.resources: dict[str, object] = {}
        self._deadline = self._kill_at = float("inf")
        self._set_up_by = 0.0

    def perform(self, command: list[str], environment: dict[bytes, bytes]) -> None:
        """Run it to the end.

        :raises StageError: if it cannot be started.
        """
        pump = OutputPump(self._log)
        killed = usage.oom_kills()
        started = time.monotonic()
        try:
            process = start(command, environment, pump.writer)
        except StageError:
            pump.abandon()
            raise
        pump.start()
        sampler = usage.Sampler(process.pid)
        sampler.start()
        if self._timeout:
            self._deadline = started + self._timeout
        self._set_up_by = started + setting("STARTUP", STARTUP)
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._forward(process.pid)
            self._watch_the_clock(process.pid)
            self._signals.wait(self._pause())
        seconds = time.monotonic() - started
        io = usage.process_io(process.pid)  # a zombie still answers, for all it waited for
        signal_group(process.pid, signal.SIGKILL)  # what it left in the background must not write outputs any more
        _, status, rusage = os.wait4(process.pid, 0)
        self.exit_code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        process.returncode = self.exit_code
        pump.finish()
        if self.stopped is None and self._ran_out_of_memory(killed):
            say(OUT_OF_MEMORY)
        here = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
        self.resources = usage.summary(seconds, rusage, io, sampler, here)
        self._judge_interruption()

    def _ran_out_of_memory(self, before: int) -> bool:
        """Whether the kernel has ended a process for it; it counts a moment after it has killed."""
        for pause in (0.0, 0.1, 0.4):
            time.sleep(pause if self.exit_code == 128 + signal.SIGKILL else 0.0)
            if usage.oom_kills() > before:
                return True
        return False

    def _pause(self) -> float:
        """Seconds until something is to be done that no signal tells of."""
        left = min(self._deadline, self._kill_at) - time.monotonic()
        return min(left, STARTUP_TICK) if self._signals.received else left

    def _forward(self, group: int) -> None:
        """Pass on what came; what does not ask to stop only when the command is ready for it, or had the time to be."""
        early = time.monotonic() < self._set_up_by
        received, self._signals.received = self._signals.received, []
        for number in received:
            if early and number not in Signals.STOP and not usage.handles(group, number):
                self._signals.received.append(number)
                continue
            name = signal.Signals(number).name
            say(f"forwarding {name}")
            signal_group(group, number)
            if number in Signals.STOP or number in CHECKPOINT_SIGNALS:
                self.interrupted = name
            if number in Signals.STOP and self.stopped is None:
                self._stop(StageError(f"cancelled by {name}", 128 + number, "cancelled", permanent=False))

    def _watch_the_clock(self, group: int) -> None:
        if time.monotonic() >= self._deadline:
            self._stop(
                StageError(f"the command ran longer than its timeout of {self._timeout:g} s", EXIT_TIMEOUT, "timeout")
            )
            signal_group(group, signal.SIGTERM)
        if time.monotonic() >= self._kill_at:
            say(f"the command did not stop within {self._grace:g} s; killing it")
            self._kill_at = float("inf")
            signal_group(group, signal.SIGKILL)

    def _stop(self, why: StageError) -> None:
        self.stopped = why
        self._deadline, self._kill_at = float("inf"), time.monotonic() + self._grace

    def _judge_interruption(self) -> None:
        """Tell a command that ended because of a checkpoint signal from one that just got it."""
        if self.stopped is not None or not self.interrupted:
            return
        number = signal.Signals[self.interrupted]
        if self.exit_code in (EXIT_INTERRUPTED, 128 + number):
            self.stopped = StageError(
                f"interrupted by {self.interrupted}; the next try can continue from its checkpoint",
                self.exit_code,
                "interrupted",
                permanent=False,
            )
        elif self.exit_code == 0:
            self.interrupted = ""
