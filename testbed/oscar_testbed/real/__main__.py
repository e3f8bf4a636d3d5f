# SPDX-License-Identifier: Apache-2.0
"""``python -m oscar_testbed.real build|up|down|status|run``: the stack by hand.

``up`` leaves it running in the background and prints where everything is; ``down`` stops it and undoes what it
changed on the machine, also after a crash; ``run`` brings it up, runs ``tests/system`` against it and takes it down.
``run --short`` runs the demo's scenario only, and passes where the machine cannot run the stack, saying why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.process import spawn
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.stack import (
    Part,
    Stack,
    clean_up,
    default_directory,
    forget,
    only_one,
    owner,
    part_line,
    publish,
)

#: Exit code where the machine lacks something.
_CANNOT = 3
_UP_SECONDS = 1800.0
_DOWN_SECONDS = 60.0
_BUILD_MINUTES = 25.0
_SHORT = ("tests/system/test_demo.py",)
#: Nearly all of it is waiting, which three workers do at once; the tests of one stack stay together.
_ALL = ("tests/system", "--numprocesses=3", "--dist=loadfile")
_ROOT = Path(__file__).parents[3]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; 3 where the machine lacks something."""
    parser = argparse.ArgumentParser(prog="python -m oscar_testbed.real", description=__doc__)
    parser.add_argument("command", choices=sorted(_COMMANDS))
    parser.add_argument("--directory", type=Path, default=default_directory(), help="everything is written below it")
    parser.add_argument("--no-apptainer", dest="apptainer", action="store_false", help="jobs are plain processes")
    parser.add_argument("--no-node", dest="node", action="store_false", help="no kubelet: needs no root")
    parser.add_argument("--short", action="store_true", help="with run: the demo only; skips what cannot be had")
    text = "with run --short: how long Kubernetes may be built"
    parser.add_argument("--build-minutes", type=float, default=_BUILD_MINUTES, help=text)
    options, rest = parser.parse_known_args(arguments)
    options.rest = rest
    if options.rest and options.command != "run":  # whose further words are for pytest
        parser.error(f"unknown: {' '.join(options.rest)}")
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except MissingPrerequisite as error:
        if options.short:
            _say(f"skipped: system tests: {error}")
            return 0
        _say(f"cannot: {error}")
        return _CANNOT
    except PlatformError as error:
        _say(f"error: {error}")
        return 1


def build(_: argparse.Namespace) -> int:
    """Build what is built once."""
    _say(f"programs are in {kubernetes_build.build(_say)}")
    return 0


def up(options: argparse.Namespace) -> int:
    """Start a keeper in the background and wait until everything answers."""
    directory: Path = options.directory.absolute()
    if pid := owner(directory):
        raise MissingPrerequisite(f"it is up already (process {pid}); `python -m oscar_testbed.real down` stops it")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    state, log_path = directory / "stack.json", directory / "keeper.log"
    state.unlink(missing_ok=True)
    with log_path.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "oscar_testbed.real", "keep", "--directory", str(directory), *_switches(options)],
            cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    shown, deadline = 0, time.monotonic() + _UP_SECONDS
    try:
        while not state.exists():
            shown = _show(log_path, shown)
            if keeper.poll() is not None or time.monotonic() > deadline:
                _show(log_path, shown)
                return keeper.wait() or 1 if keeper.poll() is not None else 1
            time.sleep(0.2)
    except BaseException:
        keeper.terminate()
        keeper.wait(_DOWN_SECONDS)
        raise
    _show(log_path, shown)
    found = json.loads(state.read_text())
    _say(f"export KUBECONFIG={shlex.quote(found['kubeconfig'])}")
    for name, value in found["slurm"].items():
        _say(f"export {name}={shlex.quote(value)}")
    return 0


def keep(options: argparse.Namespace) -> int:
    """Hold the stack until SIGTERM or SIGINT; what ``up`` runs in the background."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _interrupt(stop))
    directory: Path = options.directory.absolute()
    with only_one(directory):
        node = None if options.node else False
        stack = Stack(directory, node=node, apptainer=options.apptainer, progress=_say)
        try:
            began = time.monotonic()
            stack.start()
            publish(stack)
            _say(f"the stack is up ({time.monotonic() - began:.1f} s)")
            while not stop.wait(1.0):
                pass
        except KeyboardInterrupt:
            _say("stopping")
        finally:
            (directory / "stack.json").unlink(missing_ok=True)
            stack.stop()
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the stack, or undo what a crashed one left; one that does not run is fine."""
    directory: Path = options.directory.absolute()
    deadline = time.monotonic() + _DOWN_SECONDS
    pid = owner(directory)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    while owner(directory) is not None:
        if time.monotonic() > deadline:
            _say(f"process {pid} does not stop; kill it and run `down` again, which then cleans up after it")
            return 1
        time.sleep(0.1)
    if not directory.exists():
        _say("nothing runs there")
        return 0
    failed = clean_up(directory)
    for trouble in failed:
        _say(f"left behind: {trouble}")
    if not failed:
        forget(directory)
    _say("the stack is down")
    return 1 if failed else 0


def status(options: argparse.Namespace) -> int:
    """Print the table of parts; 1 when nothing runs."""
    state = options.directory.absolute() / "stack.json"
    if owner(options.directory.absolute()) is None or not state.exists():
        _say("the stack is down")
        return 1
    for part in json.loads(state.read_text())["parts"]:
        _say(part_line(Part(**part)))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run the system tests against the stack, which is brought up and taken down again unless it is up."""
    directory: Path = options.directory.absolute()
    if owner(directory) is not None:
        return _test(options)
    if options.short:
        with _at_most(options.build_minutes, "building Kubernetes"):
            kubernetes_build.build(_say, kubernetes_build.PROGRAMS)
    try:
        if code := up(options):
            if options.short and code == _CANNOT:
                raise MissingPrerequisite("what is named above is not there")
            return code
        return _test(options)
    finally:
        down(options)


def _test(options: argparse.Namespace) -> int:
    """Run pytest; an interruption of ours is one for it as well, and it gets time to clear up."""
    chosen = _SHORT if options.short else _ALL
    command = [sys.executable, "-m", "pytest", *chosen, *options.rest]
    environment = {**os.environ, "OSCAR_STACK_DIRECTORY": str(options.directory.absolute())}
    tests = spawn(command, stdin=None, stdout=None, stderr=None, env=environment, cwd=_ROOT, death_signal=signal.SIGINT)
    try:
        return tests.wait()
    except KeyboardInterrupt:
        tests.send_signal(signal.SIGINT)
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            tests.wait(_DOWN_SECONDS)
        tests.kill()


@contextlib.contextmanager
def _at_most(minutes: float, what: str) -> Iterator[None]:
    """Give something up after a time.

    :raises MissingPrerequisite: naming it.
    """

    def expired(*_: object) -> None:
        raise MissingPrerequisite(f"{what} takes longer than {minutes:g} minutes on this machine; given up")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupted(number: int, _: object) -> None:
    """End as Ctrl-C does, once: `make` and `timeout` both pass a signal on."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _switches(options: argparse.Namespace) -> list[str]:
    return [f"--no-{name}" for name in ("apptainer", "node") if not getattr(options, name)]


def _interrupt(stop: threading.Event) -> None:
    if not stop.is_set():
        stop.set()
        raise KeyboardInterrupt


def _show(path: Path, shown: int) -> int:
    with contextlib.suppress(FileNotFoundError):  # somebody else's `down` was quicker
        lines = path.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            _say(line)
        return len(lines)
    return shown


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


_COMMANDS = {"build": build, "up": up, "keep": keep, "down": down, "status": status, "run": run}

if __name__ == "__main__":
    sys.exit(main())
