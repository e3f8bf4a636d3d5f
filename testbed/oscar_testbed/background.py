# SPDX-License-Identifier: Apache-2.0
"""The platform as a program of its own: held in the foreground, sent to the background, stopped from elsewhere.

A platform's directory holds ``lock`` (with the process id of who runs it), ``state.json`` once everything answers (its
``message`` is for whoever waits) and, when it is in the background, ``up.log``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oscar_testbed import lock, strays
from oscar_testbed.errors import PlatformError
from oscar_testbed.files import write_private
from oscar_testbed.images import LocalImage
from oscar_testbed.platform import LocalPlatform

if TYPE_CHECKING:
    from oscar_testbed.fakes.s3 import S3Mode
    from oscar_testbed.fakes.slurm import SlurmMode

_UP_SECONDS = 600.0
_DOWN_SECONDS = 60.0
_PAUSE = 0.2
_LOCK, _STATE, _LOG = "lock", "state.json", "up.log"
_CREDENTIALS = ("environment", "connections.json")


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold a directory, mark what is started as its own, and end what an earlier owner left behind.

    :raises PlatformError: if another process holds it.
    """
    command = f"oscar-testbed down --directory {shlex.quote(str(directory))}"
    with lock.hold(directory / _LOCK, f"a platform already runs in {directory}", f"stop it first: {command}"):
        if count := strays.end(directory):
            say(f"ended {count} processes that an earlier platform had left behind")
        strays.mark(directory)
        yield


def empty(directory: Path) -> None:
    """Remove everything in a directory that is held, but its lock and the log of the background."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (_LOCK, _LOG):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """Make the first SIGTERM, SIGHUP or SIGINT end the program as Ctrl-C does, so that everything is stopped.

    Further ones are ignored: ``make`` and ``timeout`` pass on what a terminal has sent already.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_platform(
    directory: Path, *, s3: S3Mode, slurm: SlurmMode, images: Mapping[str, LocalImage], oscar_version: str
) -> int:
    """Start the platform without Airflow, and keep it until SIGINT or SIGTERM; returns the exit code."""
    from oscar_testbed.fakes.oscar import OscarOptions

    with only_one(directory), termination_interrupts():
        began = time.monotonic()
        options = OscarOptions(version=oscar_version)
        platform = LocalPlatform(directory, s3=s3, slurm=slurm, images=images, oscar_options=options, on_progress=say)
        with contextlib.suppress(KeyboardInterrupt), published(platform, directory):
            seconds = time.monotonic() - began
            announce(directory, f"the platform is up ({seconds:.1f} s); . {directory / _CREDENTIALS[0]}")
            while True:
                signal.pause()
        say("the platform is stopped")
    return 0


def write_environment(directory: Path, variables: Mapping[str, str]) -> None:
    """Write the file that lets a shell talk to what is up, and find the programs that do."""
    programs = shlex.quote(str(Path(sys.executable).parent))
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())]
    write_private(directory / "environment", f'export PATH={programs}:"$PATH"\n' + "".join(lines))


@contextlib.contextmanager
def published(platform: LocalPlatform, directory: Path) -> Iterator[None]:
    """Run a platform, with its connections in files that only their owner can read."""
    try:
        with platform:
            write_private(directory / "connections.json", json.dumps(platform.connections, indent=2) + "\n")
            write_environment(directory, platform.environment())
            yield
    finally:
        for name in (*_CREDENTIALS, _STATE):
            (directory / name).unlink(missing_ok=True)


def announce(directory: Path, message: str, **found: Any) -> None:
    """Say that everything answers, also to who waits for it.

    :param found: what else others may want to know, such as addresses.
    """
    write_private(directory / _STATE, json.dumps({"message": message, "pid": os.getpid(), **found}, indent=2))
    say(message)


def detach(command: Sequence[str], directory: Path) -> int:
    """Run a command that holds a platform in the background, and return once it is announced.

    :raises PlatformError: if one runs there already, or it does not come up.
    """
    if pid := lock.owner(directory / _LOCK):
        with contextlib.suppress(OSError, ValueError, KeyError):
            say(json.loads((directory / _STATE).read_text())["message"])
        raise PlatformError(f"it is already up (process {pid}, state in {directory}); `{_down(directory)}` stops it")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / _STATE).unlink(missing_ok=True)
    log_path = directory / _LOG
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + _UP_SECONDS
    try:
        with log_path.open(errors="replace") as log_text:
            while not (directory / _STATE).exists():
                _copy(log_text.read())
                if (code := server.poll()) is not None:
                    raise PlatformError(f"it ended with exit code {code}; see {log_path}")
                if time.monotonic() > deadline:
                    raise PlatformError(f"it did not come up within {_UP_SECONDS / 60:g} minutes; see {log_path}")
                time.sleep(_PAUSE)
            _copy(log_text.read())
    except BaseException:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            server.terminate()
            server.wait(_DOWN_SECONDS)
        raise
    return 0


def stop(directory: Path) -> str:
    """Stop the platform of a directory, and what a crashed one left behind; returns what was done, in words.

    :raises PlatformError: if it does not stop.
    """
    asked: int | None = None
    deadline = time.monotonic() + _DOWN_SECONDS
    while (pid := lock.owner(directory / _LOCK)) is not None:
        if asked is None:
            asked = pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            raise PlatformError(f"process {pid} did not stop within {_DOWN_SECONDS:g} s; see {directory}")
        time.sleep(_PAUSE)
    count = strays.end(directory)
    for name in (*_CREDENTIALS, _STATE):
        (directory / name).unlink(missing_ok=True)
    left = f"; ended {count} processes that were left behind" if count else ""
    return f"{'stopped' if asked else 'nothing is up'}{left}"


def say(text: str) -> None:
    """Print a line for whoever watches."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _copy(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _down(directory: Path) -> str:
    return f"oscar-testbed down --directory {shlex.quote(str(directory))}"
