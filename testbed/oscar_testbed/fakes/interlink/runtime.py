# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ``singularity``: runs a command as a "process container" where there are no containers.

Called as singularity is: ``exec|run [options] --env-file F --bind SRC:DST[:ro|rw] IMAGE COMMAND [ARG...]``.
The process gets an environment of its own (nothing of the caller's but ``SINGULARITYENV_*`` and
``APPTAINERENV_*``), the PATH and variables of the image's :class:`~oscar_testbed.images.LocalImage`,
and its mounts below a private directory named by ``CONTAINER_SANDBOX_MOUNT_POINT``, which is what Kubernetes
does for HostProcess containers: mount ``/data`` is found at ``$CONTAINER_SANDBOX_MOUNT_POINT/data``.
It isolates nothing and is not a security boundary; ``ro`` is not enforced.

A program of its own, started with ``python -I -S``: it must import nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

#: What singularity exits with when it cannot start a container.
CANNOT_START = 255
COMMAND_NOT_FOUND = 127
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Options of singularity that take a value in the next word.
VALUE_OPTIONS = frozenset(
    {"--env-file", "--bind", "-B", "--env", "--workdir", "--home", "--no-mount", "--scratch", "--overlay", "--pwd"}
    | {"--mount", "-H", "-S"}
)


class StartError(Exception):
    """The container cannot be started."""


def parse_arguments(
    words: Sequence[str],
) -> tuple[list[str], dict[str, str], list[tuple[str, str]], str, list[str]]:
    """Return (env files, extra variables, binds as (source, target), image, command) of a command line."""
    env_files: list[str] = []
    variables: dict[str, str] = {}
    binds: list[tuple[str, str]] = []
    rest = list(words)
    if not rest or rest.pop(0) not in ("exec", "run"):
        raise StartError("usage: exec|run [options] image [command...]")
    while rest and rest[0].startswith("-"):
        option, mark, value = rest.pop(0).partition("=")
        if option in VALUE_OPTIONS and not mark:
            if not rest:
                raise StartError(f"option {option} wants a value")
            value = rest.pop(0)
        if option == "--env-file":
            env_files.append(value)
        elif option == "--env":
            variables.update(assignment(part) for part in value.split(",") if "=" in part)
        elif option in ("--bind", "-B"):
            binds += [parse_bind(part) for part in value.split(",") if part]
    if not rest:
        raise StartError("no image given")
    return env_files, variables, binds, rest[0], rest[1:]


def assignment(text: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``."""
    name, _, value = text.partition("=")
    return name, value


def parse_bind(text: str) -> tuple[str, str]:
    """Source and target of ``src[:dst[:options]]``."""
    source, _, other = text.partition(":")
    target = other.partition(":")[0] or source
    return source, target


def read_env_file(path: str) -> dict[str, str]:
    """Variables of a file of shell-quoted assignments; nothing in it is evaluated."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        words = shlex.split(file.read(), comments=False, posix=True)
    return dict(assignment(word) for word in words if "=" in word)


def find_image(images: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Entry of the image map for a reference, with or without a ``docker://`` in front."""
    bare = name.partition("://")[2] or name
    for candidate in (name, bare):
        entry: Mapping[str, Any] | None = images.get(candidate)
        if entry is not None:
            return entry
    known = ", ".join(sorted(images)) or "none"
    raise StartError(f"FATAL: image {name!r} is not known to the embedded platform (images: {known})")


def make_root(binds: Sequence[tuple[str, str]]) -> str:
    """Directory that holds the mounts as links, a home and a temporary directory."""
    root = tempfile.mkdtemp(prefix=".container-", dir=os.environ.get("workingPath"))  # noqa: SIM112 - the job script's word
    for name in ("home", "tmp"):
        os.mkdir(os.path.join(root, name), 0o700)
    for source, target in binds:
        place = os.path.normpath(root + "/" + target)
        if not place.startswith(root + "/"):
            raise StartError(f"FATAL: mount target {target!r} leads out of the container")
        if not os.path.exists(source):
            raise StartError(f"FATAL: mount source {source!r} does not exist")
        if os.path.isdir(place) and not os.path.islink(place) and not os.listdir(place):
            os.rmdir(place)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.lexists(place):
            os.unlink(place)
        os.symlink(os.path.abspath(source), place)
    return root


def build_environment(
    image: Mapping[str, Any], env_files: Sequence[str], variables: Mapping[str, str], root: str
) -> dict[str, str]:
    """The whole environment of the command, later sources winning."""
    path = ":".join([*image.get("path", []), BASE_PATH])
    result = {"PATH": path, "HOME": root + "/home", "TMPDIR": root + "/tmp", "LANG": "C.UTF-8"}
    result.update(image.get("environment", {}))
    for file in env_files:
        result.update(read_env_file(file))
    result.update(variables)
    for prefix in ("SINGULARITYENV_", "APPTAINERENV_"):
        for name, value in os.environ.items():
            if name.startswith(prefix):
                result[name[len(prefix) :]] = value
    result["CONTAINER_SANDBOX_MOUNT_POINT"] = root
    return result


def main(words: Sequence[str]) -> int:
    """Become the command; only returns, with an exit code, when that is not possible."""
    root = ""
    try:
        env_files, variables, binds, name, command = parse_arguments(words[2:])
        with open(words[1], encoding="utf-8") as file:
            image = find_image(json.load(file), name)
        if not command:
            raise StartError(f"FATAL: image {name!r} has no command of its own here; the pod must give one")
        root = make_root(binds)
        environment = build_environment(image, env_files, variables, root)
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            sys.stderr.write(f"FATAL: {command[0]!r}: executable file not found in $PATH\n")
            return COMMAND_NOT_FOUND
        os.chdir(root + "/home")
        os.execve(program, command, environment)
    except (StartError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        if root:
            shutil.rmtree(root, ignore_errors=True)
    return CANNOT_START


if __name__ == "__main__":
    # Called as: runtime.py --images MAP exec|run ...
    sys.exit(main(sys.argv[1:]))
