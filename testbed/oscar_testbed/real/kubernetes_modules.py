# SPDX-License-Identifier: Apache-2.0
"""Builds a newer Kubernetes from Go's module proxy, which has its source but not the parts it is released with.

The module ``k8s.io/kubernetes`` names those parts (``k8s.io/api`` and so on) with version 0.0.0, for its own tree
holds them; published they are called v0.MINOR.PATCH. A module of our own says so, and everything is built in that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from oscar_testbed.errors import MissingPrerequisite

MODULE = "k8s.io/kubernetes"
#: A required module without a version of its own, in ``go.mod``.
_PART = re.compile(r"^\s*(?:require\s+)?(k8s\.io/[\w./-]+) v0\.0\.0\s*(?://.*)?$", re.MULTILINE)
_GO_LINE = re.compile(r"^go (\S+)", re.MULTILINE)
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")

#: Runs ``go`` with arguments in a directory, and returns what it printed.
RunGo = Callable[[Sequence[str], Path, dict[str, str]], str]


def find_go() -> Path:
    """Return the Go that is on ``PATH``.

    :raises MissingPrerequisite: if there is none.
    """
    found = shutil.which("go")
    if found is None:
        raise MissingPrerequisite("a current Go is needed to build this Kubernetes; put it on PATH")
    return Path(found)


def module_text(version: str, upstream: str) -> str:
    """Return the ``go.mod`` of the module in which a release is built; pure.

    :param version: of Kubernetes, without ``v``.
    :param upstream: its own ``go.mod``.
    """
    parts = "v0." + version.partition(".")[2]
    language = _GO_LINE.search(upstream)
    lines = ["module oscar-stack", f"go {language[1] if language else '1.24'}", f"require {MODULE} v{version}"]
    lines += [f"replace {name} => {name} {parts}" for name in sorted(set(_PART.findall(upstream)))]
    return "\n".join(lines) + "\n"


def prepare(run_go: RunGo, folder: Path, version: str) -> None:
    """Fetch a release and write the module it is built in."""
    folder.mkdir(parents=True, exist_ok=True)
    told = run_go(["mod", "download", "-json", f"{MODULE}@v{version}"], folder, environment(folder))
    found = json.loads(told[told.index("{") :])
    (folder / "go.mod").write_text(module_text(version, Path(found["GoMod"]).read_text()))


def compile_program(run_go: RunGo, folder: Path, name: str, part: Path, version: str) -> None:
    """Compile one program.

    :param part: where it is written.
    """
    major, minor = version.split(".")[:2]
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in values.items())
    words = ["build", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", str(part), f"{MODULE}/cmd/{name}"]
    run_go(words, folder, environment(folder))


def environment(folder: Path) -> dict[str, str]:
    """The user's own, for the proxy is in it; what Go writes goes below the folder."""
    return {
        **os.environ,
        "GOPATH": str(folder / "go"),
        "GOCACHE": str(folder / "cache"),
        "GOMODCACHE": str(folder / "modules"),
        "GOTMPDIR": str(folder),
        "GOWORK": "off",
        "GO111MODULE": "on",
        "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        "CGO_ENABLED": "0",
    }
