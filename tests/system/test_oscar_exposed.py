# SPDX-License-Identifier: Apache-2.0
"""Services that OSCAR exposes: they come up, are called, ask for a password, are stopped, started and seen to fail.

They are tried at the embedded platform, and at OSCAR itself as deployments on the stack's kubelet node.

The stack has no ingress controller, without which nobody finds an exposed service; a proxy of ours does what the
Ingress says that OSCAR makes, and has the connection's address.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed import LocalPlatform
from oscar_testbed.fakes.interlink.containers import SUPERVISOR_KIT_IMAGE
from oscar_testbed.process import free_port
from oscar_testbed.real import oscar_volume
from oscar_testbed.real.images import tools_root
from oscar_testbed.real.ingress import Ingress
from oscar_testbed.real.kubelet import NODE
from oscar_testbed.real.oci import Registry, write_layout
from oscar_testbed.real.upstream import programs
from oscar_testbed.real.upstream.minio import MinIO
from oscar_testbed.real.upstream.oscar import SERVICES, Oscar

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.exposed import last_lines
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.operators.oscar_exposed import OscarExposedServiceOperator
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from airflow_provider_oscar.sensors.oscar import OscarExposedServiceSensor
from tests.system.backends import IMAGE, PREFIX, Backend, images
from tests.system.conftest import Site
from tests.system.scenarios import make_context, until

SERVICE = f"{PREFIX}echo"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
#: Answers with what it was asked.
_PROGRAM = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0)).decode()
        said = {'method': self.command, 'path': self.path, 'body': body}
        data = json.dumps(said).encode()
        self.send_response(200 if 'missing' not in self.path else 404)
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_POST = do_GET
http.server.ThreadingHTTPServer(('0.0.0.0', PORT), Handler).serve_forever()
"""


@contextlib.contextmanager
def embedded(directory: Path, _: pytest.FixtureRequest) -> Iterator[Backend]:
    """The embedded platform."""
    with LocalPlatform(directory, images=images(), slurm="builtin") as platform:
        yield Backend("embedded", platform.connections, None, patience=20)


@contextlib.contextmanager
def real(directory: Path, request: pytest.FixtureRequest) -> Iterator[Backend]:
    """OSCAR and MinIO over the stack, behind an ingress."""
    programs.require("oscar", "minio")
    site: Site = request.getfixturevalue("site")
    if "kubelet" not in {part.name for part in site.parts}:
        pytest.skip(f"the stack has no kubelet node {NODE!r}")
    with contextlib.ExitStack() as running:
        # Pods of exposed services ask for their image each time.
        write_layout(tools_root(), directory / "tools", environment=_ENVIRONMENT, command=["/bin/sh"])
        registry = Registry({"tools": directory / "tools"})
        running.callback(registry.stop)
        registry.start()
        minio = MinIO(directory / "minio")
        running.callback(minio.stop)
        minio.start()
        oscar_volume.supervisor(directory / "programs")
        running.enter_context(oscar_volume.provided(site.kubeconfig, directory / "programs"))
        oscar = Oscar(directory / "oscar", site.kubeconfig, minio, f"docker://{SUPERVISOR_KIT_IMAGE}")
        running.callback(oscar.stop)
        oscar.start()
        oscar_volume.await_bound(site.kubeconfig)
        ingress = Ingress(site.kubeconfig, SERVICES, oscar.url)
        running.callback(ingress.stop)
        ingress.start()
        connections = {"oscar_default": oscar.connection() | {"host": ingress.url}}
        yield Backend("real", connections, None, patience=180, image=registry.reference("tools"))


OPENERS = {"embedded": embedded, "real": real}


@pytest.fixture(scope="module", params=OPENERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One back end for the module."""
    with OPENERS[request.param](tmp_path_factory.mktemp("e"), request) as backend:
        yield backend


@pytest.fixture
def backend(running: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The back end behind the default connections; the service is gone afterwards."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    yield running
    hook = OscarHook()
    if hook.run(hook.get_service(SERVICE)) is not None:
        hook.run(hook.delete_service(SERVICE))


def make(request: pytest.FixtureRequest, backend: Backend, program: str = _PROGRAM, **expose: Any) -> str:
    """Apply the service, and return what was done."""
    # Embedded services listen on this machine, all others in a pod of their own.
    port = free_port() if backend.name == "embedded" else 8080
    hook = OscarHook()
    if (found := hook.run(hook.get_service(SERVICE))) is not None:
        port = found["expose"]["api_port"][0]
    text = program.replace("PORT", str(port))
    service = ServiceDefinition(
        name=SERVICE,
        image=backend.image if backend.name == "real" else IMAGE,
        script=f"#!/bin/sh\nexec python3 -u - <<'END'\n{text}\nEND\n",
        cpu="0.2",
        memory="256Mi",
        expose={"api_port": [port], "min_scale": 1, "max_scale": 1, **expose},
    )
    done = OscarServiceOperator(task_id="service", definition=service).execute(make_context(request))
    return str(done[SERVICE])


def call(request: pytest.FixtureRequest, path: str = "", **arguments: Any) -> Any:
    """Call the service."""
    task = OscarExposedServiceOperator(task_id="call", service=SERVICE, path=path, wait=240, **arguments)
    return task.execute(make_context(request))


@pytest.mark.timeout(600)
def test_exposed_service_is_called_below_its_path_stopped_and_started_again(request, backend):
    assert make(request, backend) == "created"
    said = call(request, "deep/a%20b?x=1", payload={"a": "ü"})
    assert (said["method"], said["path"]) == ("POST", "/deep/a%20b?x=1")
    assert json.loads(said["body"]) == {"a": "ü"}
    assert OscarExposedServiceSensor(task_id="wait", service=SERVICE).poke(make_context(request))
    assert make(request, backend) == "unchanged"
    call(request, method="GET", stop_after=True)
    hook = OscarHook()
    until(lambda: hook.run(hook.get_deployment(SERVICE))["state"] == "stopped", backend.patience, "it is stopped")
    assert not OscarExposedServiceSensor(task_id="wait", service=SERVICE).poke(make_context(request))
    assert call(request, method="GET", start=True)["method"] == "GET"
    with pytest.raises(AirflowFailException, match="404 to GET"):
        call(request, "missing", method="GET")
    lines = hook.run(hook.get_deployment_logs(SERVICE))["entries"]
    assert any("GET" in str(line["message"]) for line in lines)


@pytest.mark.timeout(600)
def test_service_that_keeps_its_path_is_called_by_it(request, backend):
    make(request, backend, rewrite_target=True)
    assert call(request, "a", method="GET")["path"] == f"/system/services/{SERVICE}/exposed/a"


@pytest.mark.timeout(600)
def test_service_that_asks_for_its_token_gets_it_from_us_alone(request, backend):
    make(request, backend, set_auth=True)
    assert call(request, "a", method="GET")["path"] == "/a"
    hook = OscarHook()
    assert hook.run(hook.call_exposed(SERVICE, "a")).status_code == 401
    assert hook.run(hook.call_exposed(SERVICE, "a", token="0" * 64)).status_code == 401


@pytest.mark.timeout(600)
def test_service_whose_program_ends_is_not_called_failed_and_the_task_says_why(request, backend):
    make(request, backend, "raise SystemExit('no model to load')")
    hook = OscarHook()
    until(lambda: hook.run(last_lines(hook, SERVICE)), backend.patience, "its log is there")
    assert hook.run(hook.get_deployment(SERVICE))["state"] == "pending"
    task = OscarExposedServiceOperator(task_id="call", service=SERVICE, wait=2)
    with pytest.raises(TransientError, match="no model to load"):
        task.execute(make_context(request))
