# SPDX-License-Identifier: Apache-2.0
"""Outside programs of the embedded platform: started, watched, stopped, and never left behind.

Unlike ``subprocess`` alone, a :class:`Program` writes to a log file, is a process group of its own
that is asked and then forced to end, and dies with the platform even if that is killed (Linux).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from oscar_testbed import keeper
from oscar_testbed.errors import PlatformError, quoted

#: The address every server of the platform binds.
LOOPBACK = "127.0.0.1"
_LOG_TAIL = 2000
_PORT_MEMORY = 4096
_KEEPER_SECONDS = 10.0
#: Asks Linux to signal us when our parent ends, then becomes the program. A program of its own rather
#: than a ``preexec_fn``, which is not safe in a process with threads. What a shell starts in the background
#: ignores SIGINT, and so would all that it starts.
_GUARD = (
    "import ctypes,os,signal,sys\n"
    "number=int(sys.argv[1])\n"
    "number==signal.SIGKILL or signal.signal(number,signal.SIG_DFL)\n"
    "ctypes.CDLL(None).prctl(1,number,0,0,0)\n"
    "if os.getppid()!=int(sys.argv[2]): sys.exit(1)\n"
    "os.execvp(sys.argv[3],sys.argv[3:])\n"
)


class Component(Protocol):
    """What the platform expects of each of its parts."""

    def start(self) -> None:
        """Return once the part answers; raise what went wrong, leaving nothing running."""

    def stop(self) -> None:
        """End the part; calling it twice, or before ``start``, does nothing."""

    def healthy(self) -> bool:
        """Say whether the part answers now; never raises."""


class _Ports:
    """Free loopback ports, none handed out twice by this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[int, None] = {}

    def take(self, count: int) -> list[int]:
        ports: list[int] = []
        with self._lock, contextlib.ExitStack() as held:
            while len(ports) < count:
                probe = held.enter_context(socket.socket())
                probe.bind((LOOPBACK, 0))
                port = int(probe.getsockname()[1])
                if port not in self._given:
                    ports.append(port)
                    self._given[port] = None
            while len(self._given) > _PORT_MEMORY:
                del self._given[next(iter(self._given))]
        return ports


_ports = _Ports()


def free_ports(count: int) -> list[int]:
    """Return ``count`` loopback ports that nobody listens on now.

    Another process may take one before it is used: prefer binding port 0 where the program allows it,
    and start again with new ports where it does not.
    """
    return _ports.take(count)


def free_port() -> int:
    """Return one port of :func:`free_ports`."""
    return free_ports(1)[0]


class _Spawner:
    """One thread that lives as long as the process and starts every program.

    Linux sends the death signal when the *thread* that started the child ends, not the process; a
    program started by a short-lived worker thread would be killed at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._work: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._pid != os.getpid():  # first use, or first use after a fork
                self._pid = os.getpid()
                self._work = queue.SimpleQueue()
                threading.Thread(target=self._loop, args=(self._work,), name="local-spawner", daemon=True).start()
            work = self._work
        answer: Future[subprocess.Popen[bytes]] = Future()
        work.put((start, answer))
        return answer.result()

    @staticmethod
    def _loop(
        work: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]],
    ) -> None:
        while True:
            start, answer = work.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                answer.set_exception(error)


_spawner = _Spawner()


def spawn(
    argv: Sequence[str],
    *,
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = subprocess.STDOUT,
    stdin: int | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    keep_patience: float | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own that gets ``death_signal`` when this process ends.

    The signal reaches the program itself, not its children. Elsewhere than on Linux nothing is sent.

    :param keep_patience: put :mod:`oscar_testbed.keeper` between, which ends the program with all its descendants
        when this process ends, after so many seconds between SIGTERM and SIGKILL.
    """
    command = list(argv)
    if sys.platform == "linux" and keep_patience is not None:
        command = [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), str(keep_patience), *command]
    elif sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _GUARD, str(int(death_signal)), str(os.getpid()), *command]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True
        )

    return _spawner.run(start)


def end(
    process: subprocess.Popen[bytes], *, patience: float, first: signal.Signals = signal.SIGTERM, group: bool = True
) -> int:
    """End a process group: ``first``, ``patience`` seconds, SIGKILL; return the exit code.

    :param group: whether ``first`` goes to the whole group or to its leader alone.
    """
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(process.pid, first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived their leader, too
    return process.wait()


class Program:
    """A program that serves until it is stopped, with its output in a log file.

    :param name: what messages call it.
    :param argv: program and arguments; no shell, no secrets (other users can read them).
    :param log_path: file its output is appended to.
    :param env: whole environment, or None for ours.
    :param cwd: working directory, or None for ours.
    :param patience: seconds between SIGTERM and SIGKILL.
    :param death_signal: what it gets when this process ends.
    :param with_descendants: it starts processes that leave its process group, or itself again; they end with it, and
        all of them when this process ends, however that ends (Linux). A death signal alone is lost when a thread other
        than the first runs ``exec``, or the user changes.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        patience: float = 5.0,
        death_signal: signal.Signals = signal.SIGKILL,
        with_descendants: bool = False,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = log_path
        self._env = env
        self._cwd = cwd
        self._patience = patience
        self._death_signal = death_signal
        self._kept = with_descendants and sys.platform == "linux"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; does not wait for it to serve. Does nothing if it runs."""
        if self.running:
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = spawn(
                self.argv,
                stdout=log.fileno(),
                env=self._env,
                cwd=self._cwd,
                death_signal=self._death_signal,
                keep_patience=self._patience if self._kept else None,
            )

    def stop(self) -> None:
        """End it and its children; does nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            # A keeper passes the signal on, waits that long itself, and needs a moment to kill what is left.
            end(process, patience=self._patience + (_KEEPER_SECONDS if self._kept else 0), group=not self._kept)

    def kill(self) -> None:
        """End it and its children without a chance to tidy up, as a crash would."""
        process, self._process = self._process, None
        if process is not None and self._kept:
            end(process, patience=_KEEPER_SECONDS, first=signal.SIGUSR1, group=False)
        elif process is not None:
            end(process, patience=0.0, first=signal.SIGKILL)

    def require_running(self) -> None:
        """Raise if it ended by itself.

        :raises PlatformError: with its exit code and the end of its log.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise PlatformError(
                f"{self.name} ended by itself with exit code {code}; expected it to keep serving. "
                f"The end of {self.log_path}: {quoted(self.log_tail(), _LOG_TAIL)}"
            )

    def log_tail(self) -> str:
        """The last 2000 bytes of the log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    timeout: float,
    interval: float = 0.05,
    program: Program | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once ``ready()`` is true; the pauses grow from ``interval`` to one second.

    :param what: the condition as a clause, for the message: ``"SeaweedFS accepts a PUT"``.
    :param timeout: seconds until giving up.
    :param program: checked between attempts, so that a dead program is reported at once.
    :raises PlatformError: after ``timeout``, or if the program ended.
    """
    deadline = clock() + timeout
    pause = interval
    while not ready():
        if program is not None:
            program.require_running()
        if clock() >= deadline:
            tail = f" The end of {program.log_path}: {quoted(program.log_tail(), _LOG_TAIL)}" if program else ""
            raise PlatformError(f"waited {timeout:g} s until {what}; it never did.{tail}")
        sleep(min(pause, max(0.0, deadline - clock())))
        pause = min(1.0, pause * 1.3)
