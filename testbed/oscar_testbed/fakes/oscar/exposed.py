# SPDX-License-Identifier: Apache-2.0
"""Services that are called: synchronously through ``/run``, or exposed under a path of OSCAR's own.

An exposed service is its script in a process container, and listens on ``api_port`` of this machine, so two services
cannot have one port; a program that ends is not started again. One call of ``/run`` is one run of the FaaS Supervisor,
whose standard output is the answer.
"""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oscar_testbed.fakes.interlink.job_script import environment_file
from oscar_testbed.fakes.oscar.bucket_api import JSONResponse
from oscar_testbed.fakes.oscar.definitions import Service
from oscar_testbed.fakes.oscar.services import ServiceStore
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, end, spawn

#: Seconds a call may take.
CALL_LIMIT = 300.0
#: How long Kubernetes waits for a deployment to come up before it says that it has failed, whatever its program does.
_PROGRESS = timedelta(minutes=10)
#: A value of a Kubernetes label, which is what names are held to here.
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_WRONG_NAME = "invalid serviceName"
_FORBIDDEN = "You do not have permission to access this service"
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_HOP = frozenset(
    {"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive", "date", "server"}
)

#: The container of a service: environment, mounts and image.
Container = Callable[[Service], tuple[Mapping[str, str], tuple[tuple[Path, str], ...], str]]


def port(service: Mapping[str, Any]) -> int:
    """The first port of an exposed service; 0 for any other."""
    found = (service.get("expose") or {}).get("api_port") or 0
    return int(found[0] if isinstance(found, list) and found else found or 0)


class Exposed:
    """Runs exposed services, and answers for all services what became of their deployment.

    :param services: the definitions.
    :param container: says what the container of a service is.
    :param directory: logs of the services.
    """

    def __init__(self, services: ServiceStore, container: Container, directory: Path) -> None:
        self._services = services
        self._container = container
        self._directory = directory
        self.runtime: Path | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[str] = set()
        self._changed: dict[str, datetime] = {}
        self._lock = threading.RLock()

    def routes(self) -> list[Route]:
        """Where they are."""
        one = "/system/services/{name}"
        path = f"{one}/exposed/{{path:path}}"
        return [
            Route(f"{one}/deployment", self.deployment),
            Route(f"{one}/deployment/logs", self.logs),
            *(
                Route(f"{one}/{action}", self._acting(action), methods=["POST"])
                for action in ("start", "stop", "restart")
            ),
            Route(path, self.call, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
        ]

    def apply(self, service: Service) -> None:
        """Run a service that is exposed, as it is defined now."""
        with self._lock:
            self.remove(service["name"])
            # Before the platform has started there is nothing to run it with; start_all() comes then.
            if port(service) and self.runtime is not None:
                self._launch(service)

    def remove(self, name: str) -> None:
        """End a service and forget it."""
        with self._lock:
            self._end(name)
            self._stopped.discard(name)
            self._changed.pop(name, None)

    def start_all(self, runtime: Path) -> None:
        """Run every exposed service, from now on with this container runtime."""
        self.runtime = runtime
        for name in self._services.names():
            if service := self._services.get(name):
                self.apply(service)

    def stop_all(self) -> None:
        """End every exposed service."""
        with self._lock:
            for name in list(self._running):
                self._end(name)

    async def deployment(self, request: Request) -> Response:
        """State of the deployment."""
        name = request.path_params["name"]
        service = self._services.get(name)
        if _LABEL.fullmatch(name) is None:
            return PlainTextResponse(_WRONG_NAME, 400)
        if service is None:
            return PlainTextResponse(_FORBIDDEN, 403)
        return JSONResponse(await asyncio.to_thread(self.state, service))

    async def logs(self, request: Request) -> Response:
        """What an exposed service printed last."""
        name = request.path_params["name"]
        service = self._services.get(name)
        if _LABEL.fullmatch(name) is None:
            return PlainTextResponse(_WRONG_NAME, 400)
        if service is None:
            return PlainTextResponse(_FORBIDDEN, 403)
        path = self._log(name)
        answer: dict[str, Any] = {"service_name": name, "available": False, "entries": []}
        if not port(service) or not path.exists():
            return JSONResponse({**answer, "message": "Deployment logs are unavailable for this service."})
        wanted = request.query_params.get("tailLines", "200")
        with path.open(errors="replace") as file:
            lines = deque(file, maxlen=int(wanted) if wanted.isdigit() and int(wanted) else 200)
        if not lines:
            return JSONResponse({**answer, "message": "Deployment logs are not yet available."})
        stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        timed = request.query_params.get("timestamps", "").lower() in {"1", "t", "true"}
        entries = [{**({"timestamp": stamp} if timed else {}), "message": line.rstrip("\n")} for line in lines]
        return JSONResponse({"service_name": name, "available": True, "entries": entries})

    async def call(self, request: Request) -> Response:
        """Pass a request on to the service, without the path that leads to it unless ``rewrite_target`` keeps it."""
        name = request.path_params["name"]
        service = self._services.get(name)
        if service is None or not port(service):
            return Response("404 page not found", 404, headers={"content-type": "text/plain"})
        expose, whole = service["expose"], request.url.path
        path = whole if expose.get("rewrite_target") else f"/{request.path_params['path']}"
        headers = {key: value for key, value in request.headers.items() if key not in _HOP | {"host"}}
        if expose.get("set_auth") and not _allowed(request, name, service["token"]):
            return PlainTextResponse("401 Unauthorized", 401, headers={"WWW-Authenticate": 'Basic realm="traefik"'})
        url = httpx.URL(f"http://{LOOPBACK}:{port(service)}", path=path, query=request.url.query.encode() or None)
        try:
            async with httpx.AsyncClient(timeout=CALL_LIMIT) as client:
                answer = await client.request(request.method, url, headers=headers, content=await request.body())
        except httpx.HTTPError:
            return PlainTextResponse("no available server", 503)
        kept = {key: value for key, value in answer.headers.items() if key not in _HOP}
        return Response(answer.content, answer.status_code, headers=kept)

    async def run(self, service: Service, body: bytes) -> Response:
        """Run the supervisor once on a request, and answer what it prints; 502 where it cannot run."""
        if service["interlink_node_name"] or port(service):
            return Response(status_code=502)
        return await asyncio.to_thread(self._run, service, body)

    def _run(self, service: Service, body: bytes) -> Response:
        directory = Path(tempfile.mkdtemp(dir=self._made()))
        try:
            command = self._command(service, directory, '"$CONTAINER_SANDBOX_MOUNT_POINT/oscar/bin/supervisor"')
            env = {**_PATH, "workingPath": str(directory)}
            done = subprocess.run(command, input=body, capture_output=True, env=env, timeout=CALL_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return Response(status_code=504)
        except OSError:
            return Response(status_code=502)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if done.returncode:
            return PlainTextResponse(f"exit status {done.returncode}", 500)
        return Response(done.stdout, 200, media_type="text/plain")

    def state(self, service: Service) -> dict[str, Any]:
        """What the deployment's status says."""
        name = service["name"]
        found = {"service_name": name, "namespace": "oscar-svc"}
        if not port(service):
            why = "Current deployment visibility is unavailable for this service runtime."
            counts = {"active_instances": 0, "affected_instances": 0, "resource_kind": "unavailable"}
            return {**found, "state": "unavailable", "reason": why, **counts}
        with self._lock:
            process = self._running.get(name)
            stopped = name in self._stopped
            changed = self._changed.get(name)
        alive = process is not None and process.poll() is None
        ready = alive and _answers(port(service))
        young = changed is not None and datetime.now(UTC) - changed < _PROGRESS
        state = "stopped" if stopped else "ready" if ready else "pending" if alive or young else "failed"
        reasons = {
            "stopped": "Deployment is stopped.",
            "ready": "Deployment is ready.",
            "pending": "Deployment does not have minimum availability.",
            "failed": "The container has ended.",
        }
        return {
            **found,
            "state": state,
            "reason": reasons[state],
            **({"last_transition_time": changed.strftime("%Y-%m-%dT%H:%M:%SZ")} if changed else {}),
            "active_instances": 0 if stopped else 1,
            "affected_instances": int(not stopped and not ready),
            "resource_kind": "exposed_service",
        }

    def _acting(self, action: str) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            name = request.path_params["name"]
            service = self._services.get(name)
            if _LABEL.fullmatch(name) is None:
                return PlainTextResponse(_WRONG_NAME, 400)
            if service is None:
                return Response(status_code=404)
            if not port(service):
                return PlainTextResponse(f'service "{service["name"]}" is not exposed', 400)
            await asyncio.to_thread(self._act, action, service)
            return JSONResponse(await asyncio.to_thread(self.state, service))

        return endpoint

    def _act(self, action: str, service: Service) -> None:
        with self._lock:
            if action != "start" or service["name"] in self._stopped:
                self._end(service["name"])
            if action == "stop":
                self._stopped.add(service["name"])
            elif service["name"] not in self._running:
                self._stopped.discard(service["name"])
                self._launch(service)

    def _launch(self, service: Service) -> None:
        directory = self._made() / service["name"]
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        self._changed[service["name"]] = datetime.now(UTC)
        command = self._command(service, directory, '/bin/sh "$CONTAINER_SANDBOX_MOUNT_POINT/oscar/config/script.sh"')
        with self._log(service["name"]).open("wb") as log:
            env = {**_PATH, "workingPath": str(directory)}
            self._running[service["name"]] = spawn(command, stdout=log.fileno(), env=env, cwd=directory)

    def _command(self, service: Service, directory: Path, script: str) -> list[str]:
        environment, binds, image = self._container(service)
        env_file = directory / "environment"
        write_private(env_file, environment_file(environment))
        command = [str(self.runtime), "exec", "--containall", "--env-file", str(env_file)]
        for source, target in binds:
            command += ["--bind", f"{source}:{target}:ro"]
        return [*command, image, "/bin/sh", "-c", script]

    def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            self._changed[name] = datetime.now(UTC)
            end(process, patience=2.0)

    def _made(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._directory

    def _log(self, name: str) -> Path:
        return self._made() / f"{name}.log"


def _answers(number: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, number), timeout=1.0):
            return True
    except OSError:
        return False


def _allowed(request: Request, name: str, token: str) -> bool:
    """Whether the request has the service's name and token for user and password."""
    word = base64.b64encode(f"{name}:{token}".encode()).decode()
    return request.headers.get("authorization", "") == f"Basic {word}"
