# SPDX-License-Identifier: Apache-2.0
"""Container images made on this machine: no registry is asked, only Debian's archive.

The same root file system serves Apptainer as a directory and the kubelet's containerd as an archive.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from oscar_testbed.programs import require_program
from oscar_testbed.real.base import cache_directory, run
from oscar_testbed.real.debian import mirror
from oscar_testbed.real.oci import owned_by_root

SUITE = "bookworm"
#: What jobs need: a shell, base64 and a whole Python.
_PACKAGES = "python3"


def tools_root(progress: Callable[[str], None] = lambda text: None) -> Path:
    """Root file system with a shell and Python; made once, in less than a minute.

    :param progress: called with a sentence when it has to be made.
    :raises MissingPrerequisite: naming the tool to install.
    """
    target = cache_directory() / "images" / f"tools-{SUITE}"
    if target.exists():
        return target
    require_program("mmdebstrap", package="Debian's package mmdebstrap, which makes images")
    progress("making the image of the jobs from Debian's packages, once")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".tools-", dir=target.parent))
    try:
        options = ["--variant=minbase", f"--include={_PACKAGES}", "--quiet", "--aptopt=Acquire::Languages none"]
        options += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
        run(["nice", "-n", "19", "mmdebstrap", *options, SUITE, str(part / "root"), mirror()], timeout=900)
        # Mount points that jobs use; a container without an overlay can make none.
        for name in ("data", "airflow-oscar-work", "run/secrets/airflow-oscar", "supervisor"):
            (part / "root" / name).mkdir(parents=True, exist_ok=True)
        (part / "root").rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def image_archive(reference: str, root: Path, target: Path, command: list[str]) -> Path:
    """Pack a root file system as an image that ``docker load`` and ``ctr images import`` read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(root, arcname=".", filter=owned_by_root)
    digest = sha256(layer.read_bytes()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = f"{sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as tar:
        tar.add(layer, arcname="layer.tar")
        for entry, data in ((name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    layer.unlink()
    return target
