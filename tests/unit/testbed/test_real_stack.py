# SPDX-License-Identifier: Apache-2.0
"""Parts of the real stack that need none of it: what containers hide, and a build that is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.images import LocalImage
from oscar_testbed.real import kubernetes_build, kubernetes_modules
from oscar_testbed.real.upstream import overlay_container


@pytest.mark.parametrize(
    ("path", "mounts", "expected"),
    [
        ("/tmp/checkout/.venv/bin", ["/tmp"], "/tmp"),
        ("/oscar/bin", ["/tmp", "/oscar"], "/oscar"),
        ("/tmpfiles/bin", ["/tmp"], ""),
        ("/usr/bin", ["/tmp", "/usr/bin/python"], ""),
    ],
)
def test_mount_that_hides_a_path_is_found(path, mounts, expected):
    assert overlay_container.covering(path, mounts) == expected


def test_image_below_a_directory_that_containers_hide_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(overlay_container, "_HIDDEN", (str(tmp_path / "hidden"),))
    good, bad = LocalImage("good", path=[tmp_path / "bin"]), LocalImage("bad", path=[tmp_path / "hidden" / "bin"])
    overlay_container.install(tmp_path / "runtime", {"good": good})
    with pytest.raises(MissingPrerequisite, match=rf"image bad needs {tmp_path}/hidden/bin, which is hidden"):
        overlay_container.install(tmp_path / "runtime", {"good": good, "bad": bad})


def test_image_below_a_folder_of_its_own_is_refused(tmp_path):
    image = LocalImage("image", path=[tmp_path / "work" / "bin"])
    with pytest.raises(MissingPrerequisite, match="what they mount at"):
        overlay_container.install(
            tmp_path / "runtime", {"image": image}, {"image": {str(tmp_path / "work"): Path("/usr")}}
        )


class Build:
    """Stands in for the steps; the first build of the second program is interrupted."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.interrupt = True
        monkeypatch.delenv(kubernetes_build.VARIABLE, raising=False)
        monkeypatch.setattr(kubernetes_build, "cache_directory", lambda: cache)
        monkeypatch.setattr(kubernetes_build, "find_go", lambda: Path("/go"))
        monkeypatch.setattr(kubernetes_build, "fetch_source", self.fetch)
        monkeypatch.setattr(kubernetes_build, "_unpack", lambda archive, tree: tree.mkdir(parents=True))
        monkeypatch.setattr(kubernetes_build, "_generate", lambda *_: self.steps.append("generate"))
        monkeypatch.setattr(kubernetes_build, "_build", self.build)

    def fetch(self, name: str, suite: str, scratch: Path) -> list[Path]:
        self.steps.append("fetch")
        return [scratch / f"{name}.orig.tar.xz"]

    def build(self, go: Path, tree: Path, name: str, target: Path, environment: dict[str, str]) -> None:
        self.steps.append(name)
        if name == "kube-scheduler" and self.interrupt:
            raise KeyboardInterrupt
        (target / name).touch()


def test_interrupted_build_goes_on_where_it_was(tmp_path, monkeypatch):
    build, said = Build(tmp_path, monkeypatch), []
    with pytest.raises(KeyboardInterrupt):
        kubernetes_build.build(said.append)
    assert build.steps == ["fetch", "generate", "kube-apiserver", "kube-scheduler"]
    build.steps.clear()
    build.interrupt = False
    directory = kubernetes_build.build(said.append)
    assert build.steps == ["kube-scheduler", "kube-controller-manager", "kubelet"]
    assert sorted(path.name for path in directory.iterdir()) == sorted(kubernetes_build.PROGRAMS)
    assert not (tmp_path / "kubernetes-build").exists(), "what it took is removed once everything is built"
    assert said[-1] == "building kubelet"


UPSTREAM = """module k8s.io/kubernetes

go 1.24.0

godebug default=go1.24

require (
\tgithub.com/blang/semver/v4 v4.0.0
\tk8s.io/api v0.0.0
\tk8s.io/kube-openapi v0.0.0-20250710124328-f3f2b991d03b
)

require k8s.io/endpointslice v0.0.0 // indirect
"""


def test_parts_of_a_release_are_named_as_they_are_published():
    lines = kubernetes_modules.module_text("1.34.4", UPSTREAM).splitlines()
    assert lines[1:] == [
        "go 1.24.0",
        "require k8s.io/kubernetes v1.34.4",
        "replace k8s.io/api => k8s.io/api v0.34.4",
        "replace k8s.io/endpointslice => k8s.io/endpointslice v0.34.4",
    ]


@pytest.mark.parametrize(("given", "minor"), [("", 20), ("1.34.4", 34), ("v1.35.0", 35)])
def test_release_of_kubernetes_is_the_users_to_choose(given, minor, monkeypatch):
    monkeypatch.setenv(kubernetes_build.VARIABLE, given)
    assert kubernetes_build.minor() == minor
    assert kubernetes_build.directory().name == f"kubernetes-{given.removeprefix('v') or '1.20.2'}"


@pytest.mark.parametrize("given", ["1.34", "latest", "../x", "1.34.4-rc.1", "2.0.0"])
def test_what_is_no_release_of_kubernetes_is_refused(given, monkeypatch):
    monkeypatch.setenv(kubernetes_build.VARIABLE, given)
    with pytest.raises(MissingPrerequisite, match="name a release such as"):
        kubernetes_build.directory()


def test_a_named_release_is_built_from_its_modules(tmp_path, monkeypatch):
    """Go is played by a script that writes what it was told."""
    go, gomod = tmp_path / "go", tmp_path / "upstream.mod"
    gomod.write_text(UPSTREAM)
    go.write_text(
        f"""#!/bin/sh
case "$1" in
mod) echo 'go: downloading'; echo '{{"GoMod": "{gomod}"}}';;
build) while [ "$1" != -o ]; do shift; done; echo "$3" > "$2";;
esac
"""
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(kubernetes_build.VARIABLE, "1.34.4")
    monkeypatch.setattr(kubernetes_build, "cache_directory", lambda: tmp_path)
    folder = kubernetes_build.build(lambda text: None, kubernetes_build.CONTROL_PLANE)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: f"k8s.io/kubernetes/cmd/{name}\n" for name in kubernetes_build.CONTROL_PLANE
    }
    assert not (tmp_path / "kubernetes-build-1.34.4").exists()
