# SPDX-License-Identifier: Apache-2.0
"""Two OSCAR servers, each with a store of its own: files for several clusters, and jobs that one hands to the other.

OSCAR itself hands a job on with a token that it gets for the service's refresh token; the issuer here is a stand-in,
which gives out the token of the member's service.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from oscar_testbed import LocalPlatform
from oscar_testbed.fakes.oscar import LocalOscar
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.faults import OscarFaults
from oscar_testbed.files import write_private
from oscar_testbed.webserver import AsgiServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
from tests.system.backends import NODE, PREFIX, ground_for_oscar, images, oscar_on
from tests.system.scenarios import make_context, until

NAME = f"{PREFIX}same"
SHARED = f"{PREFIX}shared"
IMAGE = "docker://python:3-slim"
SCRIPT = "#!/bin/sh\nprintf 'moo '; cat \"$INPUT_FILE_PATH\"; echo\n"


@dataclass(frozen=True)
class Clusters:
    """Two servers.

    :param connections: by id; ``north`` is the default one.
    :param full: a context in which ``north`` has no room for a job.
    :param tells_members: a federated service is made at its members by the server itself.
    """

    name: str
    connections: dict[str, dict[str, Any]]
    full: Callable[[], contextlib.AbstractContextManager[object]]


class Issuer:
    """Exchanges any refresh token for the token of the service at ``south``."""

    def __init__(self) -> None:
        routes = [Route("/protocol/openid-connect/token", self._token, methods=["POST"])]
        self._server = AsgiServer(Starlette(routes=routes))
        self.start, self.stop = self._server.start, self._server.stop

    def refresh_token(self) -> str:
        """A token that nobody signed, which names this issuer."""
        claims = {"iss": self._server.url, "scope": "openid", "azp": "oscar"}
        parts = (json.dumps({"alg": "none"}), json.dumps(claims))
        return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts) + ".AAAA"

    async def _token(self, _: Request) -> Response:
        hook = OscarHook("south")
        (found,) = [each for each in await hook.arun(hook.list_services()) if each["name"] == SHARED]
        return JSONResponse({"access_token": found["token"], "token_type": "Bearer", "expires_in": 300})


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[Clusters]:
    """The embedded platform, and a second OSCAR over a store of its own."""
    with (
        LocalPlatform(directory / "north", images=images(), slurm="builtin") as platform,
        contextlib.ExitStack() as more,
    ):
        s3, faults = LocalS3(directory / "s3"), OscarFaults()
        south = LocalOscar(s3, None, images(), None, directory / "south", faults)
        # The login of who makes a federated service has to be good at its members too.
        (directory / "south").mkdir()
        write_private(directory / "south" / "credentials.json", json.dumps({"password": platform.oscar.password}))
        for part in (s3, south):
            more.callback(part.stop)
            part.start()
        connections = {"oscar_default": platform.connections["oscar_default"], "south": south.connection()}
        yield Clusters("embedded", connections, lambda: platform.faults.oscar.during(no_room=True))


@contextlib.contextmanager
def real(directory: Path) -> Iterator[Clusters]:
    """Two servers that have one administrator; each sees the services of its whole Kubernetes, so there are two."""
    common = {"OSCAR_PASSWORD": "for two servers", "RESOURCE_MANAGER_ENABLE": "true", "RESOURCE_MANAGER_INTERVAL": "1"}
    with contextlib.ExitStack() as parts:
        north, south = (
            parts.enter_context(
                oscar_on(parts.enter_context(ground_for_oscar(directory / name)), directory / name, common)
            )
            for name in ("n", "s")
        )
        connections = {"oscar_default": north.connections["oscar_default"], "south": south.connections["oscar_default"]}
        yield Clusters("real", {name: dict(each) for name, each in connections.items()}, contextlib.nullcontext)


OPENERS = {"embedded": embedded, "real": real}


@pytest.fixture(scope="module", params=OPENERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Both servers for the module."""
    with OPENERS[request.param](tmp_path_factory.mktemp("c")) as clusters:
        yield clusters


@pytest.fixture
def clusters(running: Clusters, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    """Both behind their connections; their services are gone afterwards."""
    for name, fields in running.connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    yield running
    for name in running.connections:
        hook = OscarHook(name)
        for service in hook.run(hook.list_services()):
            hook.run(hook.delete_service(str(service["name"])))


def apply(request: pytest.FixtureRequest, tmp_path: Path, text: str, **arguments: Any) -> dict[str, str]:
    """Apply an FDL."""
    (tmp_path / "cow.sh").write_text(SCRIPT)
    task = OscarServiceOperator(task_id="apply", fdl=text, script_folder=str(tmp_path), **arguments)
    return dict(task.execute(make_context(request)))


def two_clusters(node: str = NODE) -> str:
    """A file for two clusters whose services have one name."""
    common = f"name: {NAME}, image: '{IMAGE}', script: cow.sh, cpu: 1.0, interlink_node_name: '{node}'"
    members = "".join(
        f"  - {name}: {{{common}, memory: {size}}}\n" for name, size in (("a", "128Mi"), ("south", "256Mi"))
    )
    return f"functions:\n  oscar:\n{members}"


@pytest.mark.timeout(600)
def test_each_service_of_a_file_for_two_clusters_goes_to_its_own(request, clusters, tmp_path):
    with pytest.raises(AirflowFailException, match="'a'.*no connection"):
        apply(request, tmp_path, two_clusters())
    mapped = {"a": "oscar_default"}
    both = (f"a/{NAME}", f"south/{NAME}")
    assert apply(request, tmp_path, two_clusters(), clusters=mapped) == dict.fromkeys(both, "created")
    assert apply(request, tmp_path, two_clusters(), clusters=mapped) == dict.fromkeys(both, "unchanged")
    found = {name: (hook := OscarHook(name)).run(hook.get_service(NAME)) for name in ("oscar_default", "south")}
    assert {name: service["memory"] for name, service in found.items()} == {"oscar_default": "128Mi", "south": "256Mi"}


@pytest.mark.timeout(600)
def test_job_runs_where_its_connection_says(request, clusters, tmp_path):
    node = "" if clusters.name == "embedded" else NODE  # the second embedded server has no virtual nodes
    apply(request, tmp_path, two_clusters(node), clusters={"a": "oscar_default"})
    task = OscarJobOperator(
        task_id="run", service=NAME, payload="hello", success_when={"log": "moo hello"}, oscar_conn_id="south",
        timeout=300, poll_interval=1, deferrable=False,
    )  # fmt: skip
    done = task.execute(make_context(request))
    hook, other = OscarHook("south"), OscarHook()
    assert list(hook.run(hook.list_jobs(NAME))) == [done["submission_id"]]
    assert other.run(other.list_jobs(NAME)) == {}


def federated(clusters: Clusters, refresh_token: str, *, name: str = SHARED) -> dict[str, Any]:
    """A service with a member at ``south``."""
    fields = clusters.connections["south"]
    endpoint = {"endpoint": fields["host"], "auth_user": fields["login"], "auth_password": fields["password"]}
    member = {"type": "oscar", "cluster_id": "south", "service_name": SHARED, "priority": 1}
    return {
        "name": name,
        "image": "python:3-slim",
        "script": "cow.sh",
        # More than any node has, so that a real server hands its jobs on; the member's own is another.
        "cpu": "1000" if clusters.name == "real" else "1.0",
        "memory": "128Mi",
        "environment": {"secrets": {"refresh_token": refresh_token}},
        "clusters": {"south": {**endpoint, "ssl_verify": False}},
        "federation": {"group_id": "g", "topology": "star", "delegation": "static", "members": [member]},
    }


@pytest.mark.timeout(600)
def test_new_federated_service_of_which_a_member_is_there_would_cost_that_one(request, clusters, tmp_path):
    own = {"name": SHARED, "image": "python:3-slim", "script": "cow.sh", "memory": "128Mi"}
    text = json.dumps({"functions": {"oscar": [{"south": own}]}})
    assert apply(request, tmp_path, text, clusters={"south": "south"}) == {SHARED: "created"}
    service = federated(clusters, "r", name=f"{SHARED}-origin")
    text = json.dumps({"functions": {"oscar": [{"default-cluster": service}]}})
    with pytest.raises(AirflowFailException, match=f"'south'.*a service '{SHARED}' already"):
        apply(request, tmp_path, text)
    north, south = OscarHook(), OscarHook("south")
    assert south.run(south.get_service(SHARED)) is not None
    with north.client(repeat=False) as client:
        answer = client.post(f"{north.connection.host}/system/services", json=service | {"script": SCRIPT}, timeout=120)
    assert (answer.status_code, "rollback" in answer.text) == (500, True)
    assert south.run(south.get_service(SHARED)) is None, "this is what is refused"
    assert north.run(north.get_service(service["name"])) is None


@pytest.mark.timeout(600)
def test_job_that_is_handed_to_a_member_is_followed_there_with_what_it_is_about(request, clusters, tmp_path):
    issuer = Issuer()
    issuer.start()
    service = federated(clusters, issuer.refresh_token())
    try:
        text = json.dumps({"functions": {"oscar": [{"default-cluster": service}]}})
        assert apply(request, tmp_path, text) == {SHARED: "created"}
        south = OscarHook("south")
        there = south.run(south.get_service(SHARED))
        assert there is not None, "the server makes a federated service at its members"
        own = {"name": SHARED, "image": IMAGE, "script": "cow.sh", "cpu": "1.0", "memory": "128Mi"}
        node = {} if clusters.name == "embedded" else {"interlink_node_name": NODE}
        text = json.dumps({"functions": {"oscar": [{"south": own | node}]}})
        assert apply(request, tmp_path, text, clusters={"south": "south"}) == {SHARED: "updated"}
        task = OscarJobOperator(
            task_id="run", service=SHARED, payload="hello", success_when={"log": "moo hello"},
            timeout=300, poll_interval=1, deferrable=False,
        )  # fmt: skip
        with clusters.full():
            done = task.execute(make_context(request))
        assert list(south.run(south.list_jobs(SHARED))) == [done["submission_id"]]
        north = OscarHook()
        assert north.run(north.list_jobs(SHARED)) == {}
        # What is no JSON is handed on as nothing; ours is sent in a form that is.
        token = str(north.run(north.get_service(SHARED))["token"])
        headers = {"Authorization": f"Bearer {token}", "X-Delegated-Job-ID": f"{SHARED}-bare"}
        with clusters.full(), north.client(repeat=False) as client:
            url = f"{north.connection.host}/job/{SHARED}"
            assert client.post(url, content=b"aGVsbG8=", headers=headers, timeout=60).status_code == 201
        bare = f"{SHARED}-bare"
        until(lambda: dict(south.run(south.list_jobs(SHARED)))[bare].phase.ended, 240, "the job has ended")
        assert "hello" not in str(south.run(south.job_log(SHARED, bare)))
    finally:
        issuer.stop()
