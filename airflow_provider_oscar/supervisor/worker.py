# SPDX-License-Identifier: Apache-2.0
"""A persistent worker: one process of the user's that does one object after another.

What it loads, it loads once. It is told of an object by a line on its standard input, a JSON object with the variables
that a command started for that object would find, and answers with a line in the pipe that ``SUPERVISOR_ANSWERS``
names: the exit code. At the end of its input it ends. One that ends before is started again for the next object.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from types import SimpleNamespace
from typing import Any

from airflow_provider_oscar.supervisor import usage
from airflow_provider_oscar.supervisor.command import STARTUP, Run, Signals, signal_group, start
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.joblog import JobLog, OutputPump
from airflow_provider_oscar.supervisor.text import quoted, say, setting

#: Variables of one object; the others are the worker's own, from its start.
OBJECT_VARIABLES = (
    *("INPUT_FILE_PATH", "TMP_INPUT_DIR", "TMP_OUTPUT_DIR", "CHECKPOINT_DIR", "JOB_FILES_DIR"),
    *("SUPERVISOR_METRICS_FILE", "JOB_UUID", "STORAGE_OBJECT_KEY", "EVENT_TIME", "EVENT"),
)
#: EX_SOFTWARE: the worker did not keep to what was agreed.
EXIT_WORKER = 70
#: Seconds between two attempts to hand over a line the worker is too busy to read.
FLUSH_PAUSE = 0.1


class Worker:
    """The process, as long as there is one.

    :param folder: where the pipe of its answers is made; it stays.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, f"answers-{os.getpid()}")
        os.mkfifo(self._path, 0o600)
        # Open for both, so that it has no end while no worker has it open.
        self.answers = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.process: subprocess.Popen[bytes] | None = None
        self.pump: OutputPump | None = None
        self._source = -1
        self._unsent = self._unread = b""

    def begin(self, command: list[str], environment: dict[bytes, bytes], log: JobLog) -> int:
        """Hand over one object, to a new process where there is none; return its process id.

        :param environment: of a command for this object.
        :param log: of this object.
        :raises StageError: if no process can be started.
        """
        if self.process is not None and self.ended():
            self.end()
        if self.process is None:
            self._start(command, environment, log)
        else:
            assert self.pump is not None
            self.pump.switch(log)
        more = self._unread.partition(b"\n")[2]
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.answers, 4096):
                more += data
        if more:
            say("the worker answered more than it was asked; that is left out")
        variables = {
            name: os.fsdecode(environment[name.encode("ascii")])
            for name in OBJECT_VARIABLES
            if name.encode("ascii") in environment
        }
        self._unsent, self._unread = json.dumps(variables).encode("ascii") + b"\n", b""
        assert self.process is not None
        return self.process.pid

    def _start(self, command: list[str], environment: dict[bytes, bytes], log: JobLog) -> None:
        own = {name: value for name, value in environment.items() if os.fsdecode(name) not in OBJECT_VARIABLES}
        own[b"SUPERVISOR_ANSWERS"] = os.fsencode(self._path)
        pump = OutputPump(log)
        reader, self._source = os.pipe()
        os.set_blocking(self._source, False)
        try:
            self.process = start(command, own, pump.writer, reader)
        except StageError:
            pump.abandon()
            os.close(self._source)
            raise
        finally:
            os.close(reader)
        pump.start()
        self.pump = pump

    def ended(self) -> bool:
        """Whether the process ended."""
        assert self.process is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def flush(self) -> bool:
        """Go on to hand over the object; return whether that is done."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._source, self._unsent) :]
        return not self._unsent

    def answer(self) -> bytes | None:
        """Return the line that was answered, without its end; None as long as there is none."""
        with contextlib.suppress(BlockingIOError):
            self._unread += os.read(self.answers, 4096)
        line, newline, _ = self._unread.partition(b"\n")
        return line.strip() if newline or len(line) > 4096 else None

    def end(self) -> Any:
        """Kill what is left of it; return its wait status and what it cost."""
        assert self.process is not None
        assert self.pump is not None
        signal_group(self.process.pid, signal.SIGKILL)
        _, status, cost = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        self.pump.finish()
        os.close(self._source)
        self.process = self.pump = None
        return status, cost

    def close(self, signals: Signals) -> None:
        """Let it end by itself, for some time."""
        if self.process is None:
            return
        os.close(self._source)
        self._source = os.open(os.devnull, os.O_WRONLY)
        deadline = time.monotonic() + setting("KILL_GRACE", 10.0)
        while not self.ended() and time.monotonic() < deadline:
            signals.wait(deadline - time.monotonic())
        self.end()


class WorkerRun(Run):
    """One object in the hands of a persistent worker.

    :param worker: does it.
    """

    def __init__(
        self, worker: Worker, signals: Signals, log: JobLog, timeout: float | None, grace: float | None
    ) -> None:
        super().__init__(signals, log, timeout, grace)
        self._worker = worker

    def perform(self, command: list[str], environment: dict[bytes, bytes]) -> None:
        """Hand the object over, and wait for the answer.

        :raises StageError: if the worker cannot be started.
        """
        started = time.monotonic()
        worker = self._worker
        pid = worker.begin(command, environment, self._log)
        before, io = _cost(pid), usage.process_io(pid)
        sampler = usage.Sampler(pid)
        sampler.start()
        if self._timeout:
            self._deadline = started + self._timeout
        self._set_up_by = started + setting("STARTUP", STARTUP)
        while (answer := worker.answer()) is None and not worker.ended():
            self._forward(pid)
            self._watch_the_clock(pid)
            left = self._pause()
            self._signals.wait(left if worker.flush() else min(left, FLUSH_PAUSE), (worker.answers,))
        answer = worker.answer() if answer is None else answer
        seconds = time.monotonic() - started
        io = {name: value - io.get(name, 0) for name, value in usage.process_io(pid).items()}
        cost = self._conclude(answer, pid)
        cost = SimpleNamespace(
            ru_utime=max(cost.ru_utime - before.ru_utime, 0.0),
            ru_stime=max(cost.ru_stime - before.ru_stime, 0.0),
            ru_maxrss=cost.ru_maxrss,
        )
        here = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
        self.resources = usage.summary(seconds, cost, io, sampler, here)
        self._judge_interruption()

    def _conclude(self, answer: bytes | None, pid: int) -> Any:
        """Take the exit code of the object; return what the worker has cost so far."""
        worker = self._worker
        if answer is not None and re.match(rb"[0-9]{1,3}\Z", answer) and int(answer) < 256:
            self.exit_code = int(answer)
            if self.stopped is None and not self.interrupted:
                cost = _cost(pid)
                assert worker.pump is not None
                worker.pump.drain()
                return cost
            worker.end()  # it was told to stop; the next object gets one that was not
            return _nothing()
        gone = worker.ended()
        status, cost = worker.end()
        if self.stopped is not None:
            self.exit_code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        elif gone:
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            self.exit_code = code
            if code == 0:
                self.stopped = StageError(
                    "the worker ended without an answer about this object; a persistent worker writes one line with an "
                    "exit code to the file that SUPERVISOR_ANSWERS names for each line that it reads",
                    EXIT_WORKER,
                    "no-answer",
                )
        else:
            self.stopped = StageError(
                f"the worker answered {quoted((answer or b'').decode('utf-8', 'replace'))}; expected an exit code",
                EXIT_WORKER,
                "bad-answer",
            )
        return cost


def _nothing() -> SimpleNamespace:
    return SimpleNamespace(ru_utime=0.0, ru_stime=0.0, ru_maxrss=0)


def _cost(pid: int) -> SimpleNamespace:
    """Return the processor time of a process that runs, and of what it waited for."""
    cost = _nothing()
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        # After the name: state is the first, utime the twelfth; then stime, cutime, cstime.
        cost.ru_utime = (int(fields[11]) + int(fields[13])) / ticks
        cost.ru_stime = (int(fields[12]) + int(fields[14])) / ticks
    return cost
