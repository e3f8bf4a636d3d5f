# SPDX-License-Identifier: Apache-2.0
"""``python -m oscar_testbed up|down --directory D``: the platform as a program of its own.

``up`` stays in the foreground until it is interrupted. It writes ``D/environment`` (for a shell's ``.``) and
``D/connections.json``, both readable by their owner only, and removes them when it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from oscar_testbed import lock
from oscar_testbed.errors import PlatformError
from oscar_testbed.files import write_private
from oscar_testbed.images import LocalImage
from oscar_testbed.platform import LocalPlatform

_DOWN_SECONDS = 60.0
_ENVIRONMENT = "environment"
_CONNECTIONS = "connections.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except PlatformError as error:
        _say(f"error: {error}")
        return 1


def up(options: argparse.Namespace) -> int:
    """Start the platform and keep it until SIGINT or SIGTERM."""
    directory: Path = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _interrupt(stop))
    images = {each.name: each for each in options.image}
    busy = f"a platform already runs in {directory}"
    remedy = f"stop it first: python -m oscar_testbed down --directory {directory}"
    with lock.hold(directory / "platform.pid", busy, remedy), contextlib.suppress(_Interrupted):
        began = time.monotonic()
        platform = LocalPlatform(directory, s3=options.s3, slurm=options.slurm, images=images, on_progress=_say)
        try:
            platform.start()
            write_private(directory / _CONNECTIONS, json.dumps(platform.connections, indent=2) + "\n")
            lines = [f"export {name}={shlex.quote(value)}\n" for name, value in platform.environment().items()]
            write_private(directory / _ENVIRONMENT, "".join(lines))
            _say(f"the platform is up ({time.monotonic() - began:.1f} s); . {directory / _ENVIRONMENT}")
            while not stop.wait(1.0):
                pass
        finally:
            _say("stopping")
            for name in (_CONNECTIONS, _ENVIRONMENT):
                (directory / name).unlink(missing_ok=True)
            platform.stop()
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the platform of a directory; one that does not run is fine."""
    path = options.directory.resolve() / "platform.pid"
    deadline = time.monotonic() + _DOWN_SECONDS
    asked = False
    while (pid := lock.holder(path)) is not None:
        if not asked:
            os.kill(pid, signal.SIGTERM)
            asked = True
        if time.monotonic() > deadline:
            _say(f"error: process {pid} did not stop within {_DOWN_SECONDS:g} s; look at it, or kill it")
            return 1
        time.sleep(0.1)
    _say("the platform is down" if asked else "no platform runs there")
    return 0


class _Interrupted(BaseException):
    """SIGINT or SIGTERM while the platform starts."""


def _interrupt(stop: threading.Event) -> None:
    if not stop.is_set():
        stop.set()
        raise _Interrupted


def _image(text: str) -> LocalImage:
    name, separator, path = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError("expected NAME=DIRECTORY[:DIRECTORY...]")
    return LocalImage(name, path=[Path(each).resolve() for each in path.split(os.pathsep) if each])


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m oscar_testbed", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="up|down")
    for name, run in (("up", up), ("down", down)):
        command = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--directory", type=Path, required=True, help="everything is written below it")
    command = commands.choices["up"]
    command.add_argument("--s3", choices=["auto", "seaweedfs", "moto"], default="auto")
    command.add_argument("--slurm", choices=["auto", "real", "builtin"], default="auto")
    command.add_argument(
        "--image",
        type=_image,
        action="append",
        default=[],
        metavar="NAME=DIRECTORY[:DIRECTORY...]",
        help="directories put before PATH when a job asks for this image",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
