# SPDX-License-Identifier: Apache-2.0
"""The volume ``oscar-pvc`` of OSCAR's pods, from which they take the FaaS Supervisor: here a directory of the node."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oscar_testbed import __version__
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.oscar import faas
from oscar_testbed.fakes.oscar.offload import NAMESPACE
from oscar_testbed.process import wait_until
from oscar_testbed.real import environments
from oscar_testbed.real.base import run
from oscar_testbed.real.cluster import apply, kube_client

#: Where pods mount it.
MOUNT = "/oscar/bin"
_CLAIM = "oscar-pvc"
_VOLUMES = "/api/v1/persistentvolumes"
_CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
_MODULE = "faassupervisor.supervisor"
_ASKED = "import importlib.metadata as m, sysconfig as s; print(s.get_path('purelib'), m.version('faas-supervisor'))"
#: Of the images that are made here; what is compiled for another is of no use in them.
_PYTHON = (3, 11)


def embedded_supervisor(directory: Path) -> str:
    """Lay out our stand-in for the FaaS Supervisor, for the interpreter of the image; returns its version."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(faas.__file__, directory / "faas.py")
    _write(directory, f"exec python3 -I {MOUNT}/faas.py")
    return __version__


def supervisor(directory: Path) -> tuple[bool, str]:
    """Lay out the FaaS Supervisor itself where it can be had, else our stand-in; returns which, and its version."""
    if sys.version_info[:2] != _PYTHON:
        return False, embedded_supervisor(directory)
    try:
        python = environments.faas_supervisor()
    except MissingPrerequisite:
        return False, embedded_supervisor(directory)
    packages, version = run([str(python), "-c", _ASKED]).split()
    shutil.copytree(packages, directory / "packages", ignore=shutil.ignore_patterns("__pycache__", "pip*"))
    # Not by PYTHONPATH: Debian's Python lacks the rest of distutils, which setuptools brings in a .pth file.
    code = (
        f'import runpy, site; site.addsitedir("{MOUNT}/packages"); runpy.run_module("{_MODULE}", run_name="__main__")'
    )
    _write(directory, f"exec python3 -B -c '{code}'")
    return True, version


def _write(directory: Path, command: str) -> None:
    program = directory / "supervisor"
    program.write_text(f'#!/bin/sh\n{command} "$@"\n')
    program.chmod(0o755)


@contextlib.contextmanager
def provided(kubeconfig: Mapping[str, Any], directory: Path) -> Iterator[None]:
    """Hold a directory ready for the claim that OSCAR's pods name; takes the claim along when it goes.

    :param directory: with a program ``supervisor``.
    """
    name = "oscar-stack-supervisor"
    specification = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(directory.absolute()), "type": "Directory"},
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": NAMESPACE, "name": _CLAIM},
    }
    head = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    with kube_client(kubeconfig) as client:
        apply(client, f"{_VOLUMES}/{name}", {**head, "spec": specification})
        try:
            yield
        finally:
            client.delete(f"{_CLAIMS}/{_CLAIM}")
            client.delete(f"{_VOLUMES}/{name}")


def await_bound(kubeconfig: Mapping[str, Any]) -> None:
    """Return once the claim has its volume; pods do not start before."""
    with kube_client(kubeconfig) as client:

        def bound() -> bool:
            answer = client.get(f"{_CLAIMS}/{_CLAIM}")
            return answer.is_success and answer.json().get("status", {}).get("phase") == "Bound"

        wait_until(bound, what=f"the claim {_CLAIM} has its volume", timeout=60)
