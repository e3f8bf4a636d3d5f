# SPDX-License-Identifier: Apache-2.0
"""A container runtime for jobs where Apptainer is not installed: this machine's own root, with real mounts.

Unlike the embedded platform's process containers, mounts are at the very paths the pod names, the file
system is a private copy (an overlay), and the environment is only what was given. Needs root and Linux.
Called as singularity is; a program of its own: ``overlay_container.py IMAGES exec|run ...``.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.interlink import runtime
from oscar_testbed.images import LocalImage

#: What every container has of its own.
_HIDDEN = ("/tmp", "/proc", "/dev", "/sys")


def install(
    directory: Path, images: Mapping[str, LocalImage], folders: Mapping[str, Mapping[str, Path]] | None = None
) -> Path:
    """Write the image map and a program ``singularity`` below ``directory``; return the program.

    :param folders: per image, directories of this machine that the image has at a path of its own.
    :raises MissingPrerequisite: if a mount of every container hides what an image consists of.
    """
    for name, image in images.items():
        mounts = [*_HIDDEN, *(folders or {}).get(name, {})]
        for path in map(str, image.path):
            if mount := covering(path, mounts):
                raise MissingPrerequisite(
                    f"image {name} needs {path}, which is hidden in containers by what they mount at {mount}; put the "
                    "checkout and its virtual environment elsewhere"
                )
    # Every container has mounts of its own, so that one place for them is enough.
    (directory / "mount").mkdir(parents=True, exist_ok=True)
    entries = {
        name: {
            "path": [str(path) for path in image.path],
            "environment": dict(image.environment),
            "folders": {target: str(source) for target, source in (folders or {}).get(name, {}).items()},
        }
        for name, image in images.items()
    }
    images_file = directory / "images.json"
    images_file.write_text(json.dumps(entries))
    program = directory / "singularity"
    root = Path(__file__).parents[3]
    words = [sys.executable, "-m", __name__, str(images_file)]
    program.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(root))}\n"
        f'exec unshare --mount --propagation private {shlex.join(words)} "$@"\n'
    )
    program.chmod(0o755)
    return program


def covering(path: str, mounts: Iterable[str]) -> str:
    """The mount point that hides a path of this machine, or an empty text."""
    real = Path(os.path.realpath(path))
    return next((mount for mount in mounts if real.is_relative_to(os.path.realpath(mount))), "")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, stdout=sys.stderr)


def _make_root(scratch: Path, binds: list[tuple[str, str]]) -> Path:
    _mount("-t", "tmpfs", "tmpfs", str(scratch))
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    root = scratch / "root"
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work", str(root))
    for name in ("proc", "dev", "sys"):
        _mount("--rbind", f"/{name}", str(root / name))
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp"))
    # /var/run is a link on most systems; a target below it must not lead out of the new root.
    for source, target in binds:
        place = root / os.path.realpath(target).lstrip("/")
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _mount("--bind", source, str(place))
    return root


def main(words: list[str]) -> None:
    """Become the container's command."""
    env_files, variables, binds, name, command = runtime.parse_arguments(words[1:])
    image = runtime.find_image(json.loads(Path(words[0]).read_text()), name)
    command = command or list(image.get("command", ["/bin/sh"]))
    folders = [(source, target) for target, source in image.get("folders", {}).items()]
    read = [pair for file in env_files for pair in runtime.read_env_file(file).items()]
    root = _make_root(Path(words[0]).with_name("mount"), [*folders, *binds])
    mounts = [target for _, target in (*folders, *binds)]
    for path in image.get("path", []):
        if (mount := covering(path, mounts)) and not (root / path.lstrip("/")).is_dir():
            sys.stderr.write(
                f"FATAL: image {name} needs {path}, which is hidden here by what the job mounts at {mount}; put the "
                "checkout and its virtual environment elsewhere\n"
            )
            sys.exit(255)
    os.chroot(root)
    os.chdir("/")
    path = ":".join([*image.get("path", []), runtime.BASE_PATH])
    environment = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", **image.get("environment", {}), **dict(read)}
    environment |= variables
    for prefix in ("SINGULARITYENV_", "APPTAINERENV_"):
        environment |= {key.removeprefix(prefix): value for key, value in os.environ.items() if key.startswith(prefix)}
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        sys.stderr.write(f"FATAL: {command[0]!r}: {error}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 255)


if __name__ == "__main__":
    main(sys.argv[1:])
