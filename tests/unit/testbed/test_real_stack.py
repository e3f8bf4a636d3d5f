# SPDX-License-Identifier: Apache-2.0
"""Parts of the real stack that need none of it: what containers hide, and a build that is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.images import LocalImage
from oscar_testbed.real import kubernetes_build
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


@pytest.fixture
def newer(tmp_path, monkeypatch):
    """The folder of somebody's own Kubernetes, without a kubelet."""
    for name in kubernetes_build.CONTROL_PLANE:
        (tmp_path / name).write_text("#!/bin/sh\necho Kubernetes v1.34.4\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv(kubernetes_build.VARIABLE, str(tmp_path))
    return tmp_path


def test_programs_of_another_release_are_used_as_they_are(newer):
    assert kubernetes_build.build(lambda text: None, kubernetes_build.CONTROL_PLANE) == newer
    assert kubernetes_build.minor() == 34


def test_a_program_that_is_not_in_the_folder_is_named_and_not_built(newer):
    with pytest.raises(MissingPrerequisite, match=f"{newer}, where there is no kubelet"):
        kubernetes_build.build(lambda text: None)


def test_without_a_folder_the_release_is_debian_s(monkeypatch):
    monkeypatch.delenv(kubernetes_build.VARIABLE, raising=False)
    assert kubernetes_build.minor() == 20
