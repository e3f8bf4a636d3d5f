# SPDX-License-Identifier: Apache-2.0
"""One cluster for all system tests: our own stack, one that is up already, or somebody's live cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.process import wait_until
from oscar_testbed.real.base import Component
from oscar_testbed.real.slurm import Slurm
from oscar_testbed.real.stack import TOOLS_IMAGE, Part, Stack, default_directory, only_one, owner, part_line, publish

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from tests.system.dcache_site import DCacheSite, named
from tests.system.table import Table

_FOLDER = Path(__file__).parent
#: Files whose tests restart parts of the dCache that is named, which the demo uses as well.
_AT_DCACHE = frozenset({"test_dcache", "test_dcache_kafka", "test_dcache_logins"})
#: Files whose tests look at the one stack.
_ON_STACK = frozenset(
    f"test_{name}"
    for name in (
        "demo",
        "executors",
        "kubernetes_pod_operator",
        "kubernetes_slurm",
        "operator",
        "oscar_exposed",
        "pod_runner",
        "stack",
    )
)
_LINES: pytest.StashKey[list[str]] = pytest.StashKey()


@dataclass(frozen=True)
class Site:
    """A Kubernetes cluster with interLink nodes, as the tests see it.

    :param kubeconfig: how to reach it.
    :param cpu_node: virtual node for ordinary jobs.
    :param gpu_node: virtual node with GPUs; empty if there is none.
    :param image: an image with a shell, base64 and python3 that the HPC side can run.
    :param slurm: the scheduler itself, or None where only the cluster can be asked.
    :param parts: what was started.
    """

    kubeconfig: dict[str, Any] = field(repr=False)
    cpu_node: str
    gpu_node: str
    image: str
    slurm: BatchSystem | None = None
    parts: tuple[Part, ...] = ()

    def connection(self) -> str:
        """The Airflow connection as an environment variable holds it."""
        extra = {"kube_config": self.kubeconfig, "namespace": os.environ.get("SYSTEM_NAMESPACE", "default")}
        return json.dumps({"conn_type": "interlink", "extra": extra})


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--backend``: where the tests run."""
    parser.addoption(
        "--backend",
        choices=["own", "live"],
        default="own",
        help="own: the stack of this directory, started unless it is up; live: the cluster of KUBECONFIG",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LINES] = []
    config.pluginmanager.register(Table())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See that every file that looks at the stack is among those that are kept together."""
    here = [item for item in items if item.path.parent == _FOLDER and "site" in getattr(item, "fixturenames", ())]
    if unknown := {item.path.stem for item in here if not hasattr(getattr(item, "module", None), "site")} - _ON_STACK:
        raise pytest.UsageError(f"{', '.join(sorted(unknown))} use the stack and are not in {__name__}._ON_STACK")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several workers share the tests, one has all that look at the one stack or dCache; no file is divided."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            stem = Path(nodeid.partition("::")[0]).stem
            return "stack" if stem in _ON_STACK | _AT_DCACHE else stem

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell what was real to the process that prints it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["what was real"] = session.config.stash[_LINES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what was real from a worker that has ended; one that was killed does not tell."""
    node.config.stash[_LINES] += getattr(node, "workeroutput", {}).get("what was real", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[_LINES]
    if lines:
        terminalreporter.section("what was real")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The cluster; skips every test where the machine lacks something, and says what."""
    lines = request.config.stash[_LINES]
    if request.config.getoption("--backend") == "live":
        site = _live(Path(os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser())
        lines.append(f"live cluster {site.kubeconfig['clusters'][0]['cluster']['server']}, node {site.cpu_node}")
        yield site
    elif owner(default_directory()):
        site = _running(default_directory())
        lines += [part_line(part) for part in site.parts]
        yield site
    else:
        with only_one(default_directory()), Stack(progress=lambda text: None) as stack:
            lines += [part_line(part) for part in stack.parts]
            state = publish(stack)  # where the demo finds it
            try:
                yield _site(stack.api.kubeconfig(), stack.slurm, tuple(stack.parts))
            finally:
                state.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def start(request: pytest.FixtureRequest) -> Callable[[Component], None]:
    """Starts a system that one test module needs, and adds it to the table; skips where the machine lacks it."""
    lines = request.config.stash[_LINES]

    def start(component: Component) -> None:
        began = time.monotonic()
        component.start()
        seconds = round(time.monotonic() - began, 1)
        part = Part(component.name, component.real, component.version, seconds, str(component.log_path))
        lines.append(part_line(part))

    return start


@pytest.fixture
def hook(site: Site, monkeypatch: pytest.MonkeyPatch) -> InterLinkHook:
    """The provider's own hook on the cluster."""
    monkeypatch.setenv("AIRFLOW_CONN_INTERLINK_DEFAULT", site.connection())
    return InterLinkHook()


@pytest.fixture(scope="session")
def dcache_site() -> Iterator[DCacheSite]:
    """A dCache, with a directory of our own; skips where none is named and none runs."""
    found = named()
    with found.hook() as hook:
        hook.make_directory(found.base)
        yield found
        hook.delete("/", found.base)


@pytest.fixture
def dcache_hook(dcache_site: DCacheSite, monkeypatch: pytest.MonkeyPatch) -> Iterator[DCacheHook]:
    """The hook, whose paths are below our directory; also the connection ``dcache_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_DCACHE_DEFAULT", json.dumps(dcache_site.fields(dcache_site.base)))
    if dcache_site.ca:
        monkeypatch.setenv("SSL_CERT_FILE", dcache_site.ca)
    with dcache_site.hook(dcache_site.base) as found:
        yield found


def _site(kubeconfig: dict[str, Any], slurm: BatchSystem | None, parts: tuple[Part, ...]) -> Site:
    return Site(kubeconfig, "slurm-cpu", "slurm-gpu", TOOLS_IMAGE, slurm, parts)


def _running(directory: Path) -> Site:
    state = directory / "stack.json"
    wait_until(state.exists, what=f"the stack in {directory} is up", timeout=600)
    found = json.loads(state.read_text())
    kubeconfig = json.loads(Path(found["kubeconfig"]).read_text())
    # Its clients need the configuration only, which is there while the cluster runs.
    return _site(kubeconfig, Slurm(directory / "slurm"), tuple(Part(**part) for part in found["parts"]))


def _live(path: Path) -> Site:
    """Somebody's cluster; the image has to be named, since no two sites have the same."""
    import yaml

    image = os.environ.get("SYSTEM_IMAGE")
    node = os.environ.get("SYSTEM_NODE")
    if not path.exists() or not image or not node:
        raise MissingPrerequisite(
            f"--backend=live needs a kubeconfig ({path}), SYSTEM_NODE (name of a virtual node) and SYSTEM_IMAGE "
            "(an image with sh, base64 and python3 that the HPC side can run)"
        )
    return Site(yaml.safe_load(path.read_text()), node, os.environ.get("SYSTEM_GPU_NODE", ""), image)
