# SPDX-License-Identifier: Apache-2.0
"""Builds the Kubernetes programs from Debian's source package, once, into a cache outside the tree.

Debian 12's source package ``kubernetes`` is the whole upstream tree with its dependencies, though Debian
itself builds only kubectl from it; later releases ship less. Go 1.19 of the same release builds it in GOPATH
mode. Nothing but Debian's own archive is asked.

Who has the programs of another release names their folder in ``OSCAR_STACK_KUBERNETES``; they are used as they are.

What was fetched, generated and compiled stays (about 1 GB) until everything is built, so that a build that was
interrupted goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from oscar_testbed import lock
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.real.base import cache_directory, run
from oscar_testbed.real.debian import fetch_source

#: What is built; the order puts what most others need first.
CONTROL_PLANE = ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
PROGRAMS = (*CONTROL_PLANE, "kubelet")
SUITE = "bookworm"
VARIABLE = "OSCAR_STACK_KUBERNETES"
GIT_VERSION = "v1.20.2"
_IMPORT = "k8s.io/kubernetes"
_TAG = b"+k8s:openapi-gen="
_VERSION_PACKAGES = ("component-base/version", "client-go/pkg/version")
#: Gives way to what somebody waits for, and still gets on where something else always runs.
_NICE = ("nice", "-n", "5")
_GO_NAMES = ("/usr/lib/go-1.19/bin/go",)


def directory() -> Path:
    """Where the programs are: the user's own folder, or where they are kept once they are built."""
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    return cache_directory() / f"kubernetes-{GIT_VERSION.removeprefix('v')}"


def minor() -> int:
    """The release's second number, by which command lines differ."""
    found = version(directory() / CONTROL_PLANE[0]) if os.environ.get(VARIABLE) else GIT_VERSION
    return int(found.split(".")[1])


def missing_programs(wanted: Sequence[str] = CONTROL_PLANE) -> tuple[str, ...]:
    """Those that have not been built."""
    return tuple(name for name in wanted if not (directory() / name).is_file())


def find_go() -> Path:
    """Return Go 1.19; a newer one no longer builds a tree of 2021.

    :raises MissingPrerequisite: naming the package to install.
    """
    for name in _GO_NAMES:
        if os.access(name, os.X_OK):
            return Path(name)
    raise MissingPrerequisite("Go 1.19 is needed to build Kubernetes; install Debian's package golang-1.19-go")


def build(progress: Callable[[str], None], wanted: Sequence[str] = PROGRAMS, *, keep: bool = False) -> Path:
    """Build what is missing and return the directory; seconds when everything is there.

    :param progress: called with a sentence per step.
    :param wanted: what has to be there afterwards.
    :param keep: leave the scratch directory (about 1 GB) behind although everything is built.
    :raises MissingPrerequisite: when Go or the source package cannot be had.
    """
    target = directory()
    missing = missing_programs(wanted)
    if not missing:
        return target
    if os.environ.get(VARIABLE):
        raise MissingPrerequisite(f"{VARIABLE} names {target}, where there is no {', '.join(missing)}")
    go = find_go()
    target.mkdir(parents=True, exist_ok=True)
    scratch = cache_directory() / "kubernetes-build"
    busy, remedy = f"Kubernetes is being built in {scratch}", "wait for it"
    with lock.hold(cache_directory() / "kubernetes-build.lock", busy, remedy, error=MissingPrerequisite):
        scratch.mkdir(exist_ok=True)
        tree, environment = scratch / "go" / "src" / _IMPORT, _environment(scratch, go)

        def fetch() -> None:
            archive = next(path for path in fetch_source("kubernetes", SUITE, scratch) if ".orig.tar." in path.name)
            shutil.rmtree(tree, ignore_errors=True)
            _unpack(archive, tree)

        _once(scratch / "fetched", "fetching Debian's source package kubernetes", fetch, progress)
        what = "generating the OpenAPI definitions, which the source package leaves out"
        _once(scratch / "generated", what, lambda: _generate(go, tree, scratch, environment), progress)
        for name in missing_programs(wanted):
            with _said_meanwhile(f"building {name}", progress):
                _build(go, tree, name, target, environment)
    if not keep:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _once(done: Path, what: str, step: Callable[[], None], progress: Callable[[str], None]) -> None:
    """Take a step unless an earlier build did."""
    if not done.exists():
        with _said_meanwhile(what, progress):
            step()
        done.touch()


@contextlib.contextmanager
def _said_meanwhile(what: str, progress: Callable[[str], None]) -> Iterator[None]:
    """Say what is being done, and every minute for how long already."""
    over = threading.Event()

    def remind() -> None:
        minutes = 0
        while not over.wait(60.0):
            minutes += 1
            progress(f"{what} ({minutes} min)")

    progress(what)
    thread = threading.Thread(target=remind, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _unpack(archive: Path, tree: Path) -> None:
    tree.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        first = tar.next()
    if first is None:
        raise MissingPrerequisite(f"{archive.name} is empty")
    run(["tar", "--extract", "--strip-components=1", f"--directory={tree}", f"--file={archive}"])


def _environment(scratch: Path, go: Path) -> dict[str, str]:
    """Everything Go may write goes below the scratch directory; GOMAXPROCS is the user's to limit."""
    kept = {name: value for name, value in os.environ.items() if name in {"GOMAXPROCS", "LANG"}}
    return {
        **kept,
        "PATH": f"{go.parent}:/usr/bin:/bin",
        "HOME": str(scratch),
        "GOPATH": str(scratch / "go"),
        "GOCACHE": str(scratch / "cache"),
        "GOTMPDIR": str(scratch),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
    }


def _go(go: Path, tree: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
    run([*_NICE, str(go), *arguments], cwd=tree, env=environment, timeout=3600)


def _generate(go: Path, tree: Path, scratch: Path, environment: Mapping[str, str]) -> None:
    generator = scratch / "openapi-gen"
    _go(go, tree, ["build", "-o", str(generator), "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"], environment)
    packages = ",".join(sorted(f"{_IMPORT}/{path}" for path in _tagged(tree)))
    words = ["-i", packages, "-p", f"{_IMPORT}/pkg/generated/openapi", "-O", "zz_generated.openapi"]
    words += ["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-r", "/dev/null"]
    command = [*_NICE, str(generator), *words, "-o", str(scratch / "go" / "src")]
    run(command, cwd=tree, env=environment, timeout=1800)


def _tagged(tree: Path) -> Iterator[Path]:
    """Directories whose types belong into the API's description."""
    roots = [tree / "pkg", tree / "cmd", tree / "plugin", *sorted((tree / "vendor" / "k8s.io").iterdir())]
    for root in roots:
        if root.name in {"code-generator", "sample-apiserver"}:
            continue
        for folder, _, files in os.walk(root):  # enters a root that is a link, and no link below it
            if "testdata" in Path(folder).parts:
                continue
            sources = (Path(folder, name) for name in files if name.endswith(".go"))
            if any(_TAG in source.read_bytes() for source in sources):
                yield Path(folder).relative_to(tree)


def _build(go: Path, tree: Path, name: str, target: Path, environment: Mapping[str, str]) -> None:
    major, minor = GIT_VERSION.removeprefix("v").split(".")[:2]
    values = {"gitVersion": GIT_VERSION, "gitMajor": major, "gitMinor": minor}
    # The server reports client-go's variables, the others component-base's.
    flags = " ".join(
        f"-X {_IMPORT}/vendor/k8s.io/{package}.{key}={value}"
        for package in _VERSION_PACKAGES
        for key, value in values.items()
    )
    part = target / f".{name}.part"
    words = [
        "build",
        "-tags",
        "providerless,dockerless",
        "-ldflags",
        f"-s -w {flags}",
        "-o",
        str(part),
        f"./cmd/{name}",
    ]
    _go(go, tree, words, environment)
    part.replace(target / name)  # a build that was broken off leaves no program behind


def version(program: Path) -> str:
    """What a program says it is."""
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().removeprefix("Kubernetes ") or "unknown"
