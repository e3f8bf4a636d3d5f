# SPDX-License-Identifier: Apache-2.0
"""Cases for interLink's SLURM plugin: pods of ours and awkward ones, from submission to removal."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from oscar_testbed.contract import normal
from oscar_testbed.contract.envelope import encode
from oscar_testbed.contract.job_pods import JobPod
from oscar_testbed.fakes.slurm import BatchSystem

IMAGE = "tools:1"
SANDBOX = "$CONTAINER_SANDBOX_MOUNT_POINT"
NASTY = "a \"b\" 'c' $HOME `id` \\ $(id) \n\t; & | < > * ? # ~ {x,y} ü€ \x01 %41 trailing \n"
_PATIENCE = 90.0
_CANCELLED = "cancelled while running"
#: The signal, a shell's exit code for it, that as a wait status, and what the plugin cuts from that.
_SIGTERM = (15, 143, 143 << 8, (143 << 8) % 100)


@dataclass(frozen=True)
class Answer:
    """What the plugin answered; ``status`` 0 is a connection closed without a word."""

    status: int
    body: Any


class Driver(Protocol):
    """A plugin, embedded or real, over a private SLURM."""

    batch: BatchSystem

    def create(self, pod: dict[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> Answer:
        """Submit a pod; the body is the job id."""

    def status(self, pod: dict[str, Any]) -> Answer:
        """Ask for one pod's status; the body is a list of container states."""

    def logs(self, pod: dict[str, Any], container: str, options: Mapping[str, Any]) -> Answer:
        """Ask for a log."""

    def delete(self, pod: dict[str, Any]) -> Answer:
        """Cancel and remove a pod."""

    def directory(self, pod: dict[str, Any]) -> Path:
        """The pod's directory."""

    def words(self) -> dict[str, str]:
        """Texts of this run only, and what to write for them."""


@dataclass(frozen=True)
class Case:
    """One pod and what is done to it; ``act`` is called once after submission."""

    name: str
    pod: Callable[[str], dict[str, Any]]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    act: Callable[[Driver, dict[str, Any], str], None] | None = None
    logs: tuple[tuple[str, Mapping[str, Any]], ...] = (("job", {}),)
    #: Runs long enough for a plugin that looks every ten seconds to see it running.
    long: bool = False


def request(script: str, **more: Any) -> Callable[[str], dict[str, Any]]:
    """A pod for a shell script.

    :param more: ``variables`` of the script, and further fields of :class:`JobPod`.
    """
    variables = more.pop("variables", {})

    def make(name: str) -> dict[str, Any]:
        env, command, args = encode(variables, ["/bin/sh", "-c", script])
        return JobPod(command=command, args=args, env=env, **more).build(name, image=IMAGE, node="slurm-cpu")

    return make


def changed(make: Callable[[str], dict[str, Any]], change: Callable[[dict[str, Any]], None]) -> Any:
    """A pod changed after the fact, into one our own code would not make."""

    def made(name: str) -> dict[str, Any]:
        pod = make(name)
        change(pod)
        return pod

    return made


def _second(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"].append(
        {"name": "side", "image": IMAGE, "command": ["/bin/sh", "-c"], "args": ["sleep 2; echo side; exit 4"]}
    )


def _plain(pod: dict[str, Any]) -> None:
    container = pod["spec"]["containers"][0]
    container["env"] = [{"name": "VALUE", "value": NASTY.replace("\x01", "")}, {"name": "EMPTY", "value": ""}]
    container["command"] = ["/bin/sh", "-c"]
    container["args"] = [
        'printf "%s|%s|\\n" "$VALUE" "$EMPTY"; for w; do printf "[%s]" "$w"; done',
        "x",
        "",
        "a 'b' \n c",
    ]


def _flags(text: str) -> Callable[[dict[str, Any]], None]:
    def change(pod: dict[str, Any]) -> None:
        pod["metadata"]["annotations"]["slurm-job.vk.io/flags"] = text

    return change


def _host_path(pod: dict[str, Any]) -> None:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/tmp"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "host", "mountPath": "/host"})


def _claim(pod: dict[str, Any]) -> None:
    pod["spec"]["volumes"].append({"name": "claim", "persistentVolumeClaim": {"claimName": "c"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "claim", "mountPath": "/claim"})


def _sub_path(pod: dict[str, Any]) -> None:
    pod["spec"]["volumes"][-1]["secret"]["items"] = [{"key": "job.json", "path": "other.json"}]


def _nowhere(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["command"] = ["/nope"]


def _no_limits(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["resources"] = {}


def _until(driver: Driver, job_id: str, *states: str) -> None:
    end = time.monotonic() + _PATIENCE
    while driver.batch.jobs()[job_id].state not in states:
        if time.monotonic() > end:
            raise AssertionError(f"job {job_id} is {driver.batch.jobs()[job_id]}, expected {states}")
        time.sleep(0.2)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _cancel_when(state: str) -> Callable[[Driver, dict[str, Any], str], None]:
    def act(driver: Driver, pod: dict[str, Any], job_id: str) -> None:
        _until(driver, job_id, state)
        if state == "R":
            # Not before the container has begun; "Running" says only that the batch script has.
            end = time.monotonic() + _PATIENCE
            while "started" not in _text(driver.directory(pod) / "run-job.out") and time.monotonic() < end:
                time.sleep(0.1)
        driver.batch.cancel(job_id)

    return act


_WORK = (
    f'printf "%s" "$VALUE" | base64 -w 0; echo; echo "job in $SLURM_JOB_PARTITION"; cat "{SANDBOX}/scratch/seed"; '
    f'cd "{SANDBOX}/var/run/secrets/airflow-oscar" && ls && cat job.json && echo; echo err >&2'
)
_SEED = {"seed": f'echo from init; echo seeded > "{SANDBOX}/scratch/seed"'}
_LATER = "--time=5 --begin=now+1hour"
_SECRET = {"cap": {"job.json": '{"a": "$HOME `id` \\n"}', "second.json": "2"}}
_ODD_LOGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("job", {}), ("job", {"Tail": 1}), ("job", {"Bytes": 5}), ("job", {"Timestamps": True}),
    ("job", {"SinceSeconds": 60}), ("job", {"Timestamps": True, "SinceSeconds": 60}), ("nobody", {}),
)  # fmt: skip

CASES = (
    Case(
        "our pod with secret, init container and nasty values",
        request(
            _WORK, variables={"VALUE": NASTY}, secret_name="cap", empty_dirs={"scratch": "/scratch"}, init=_SEED
        ),
        secrets=_SECRET,
        logs=(("job", {}), ("seed", {})),
    ),
    Case("plain nasty values", changed(request("true"), _plain)),
    Case("exit code 7", request("echo before; exit 7")),
    Case("killed by a signal", request("kill -9 $$")),
    Case("command not found", changed(request("x"), _nowhere)),
    Case("runs long enough to be seen", request("echo begin; sleep 14; echo end"), long=True),
    Case("odd log options", request("echo a; echo b"), logs=_ODD_LOGS),
    Case(
        "failing init container",
        request("echo never", init={"seed": "echo oh; exit 5"}),
        logs=(("job", {}), ("seed", {})),
    ),
    Case("second container fails later", changed(request("echo first"), _second), logs=(("job", {}), ("side", {}))),
    Case("cancelled while pending", changed(request("true"), _flags(_LATER)), act=_cancel_when("PD")),
    Case(_CANCELLED, request("echo started; sleep 300"), act=_cancel_when("R")),
    Case("unknown partition", request("true", flags="--time=5 --partition=nope")),
    Case("value with a blank in a flag", changed(request("true"), _flags("--time=5 --comment='two words'"))),
    Case("short flags", changed(request('echo "$SLURM_JOB_PARTITION"'), _flags("-p gpu -t 5"))),
    Case("no limits", changed(request("true"), _no_limits)),
    Case("claim among the volumes", changed(request("true", empty_dirs={"scratch": "/scratch"}), _claim)),
    Case("host path without type", changed(request("true"), _host_path)),
    Case(
        "renamed key of a secret",
        changed(request(f'ls "{SANDBOX}/var/run/secrets/airflow-oscar"', secret_name="cap"), _sub_path),
        secrets=_SECRET,
    ),
)  # fmt: skip


def transcript(driver: Driver, case: Case, clean: Callable[[str], str]) -> dict[str, Any]:
    """Take one pod through its life and write down what was answered.

    :param clean: takes a log as the plugin answers it, and returns the container's own lines.
    """
    pod = case.pod("pod-under-test")
    pod["metadata"]["uid"] = str(uuid.uuid4())
    created = driver.create(pod, case.secrets)
    result: dict[str, Any] = {"create": {"status": created.status}}
    words = {**driver.words(), pod["metadata"]["uid"]: "<uid>"}
    if created.status == 200:
        job_id = str(created.body)
        result["annotated"] = job_id.isdigit()
        if case.act:
            case.act(driver, pod, job_id)
        phases, end = _follow(driver, pod, job_id)
        result["end"] = _timeless(end)
        if case.long:
            result["phases"] = [phase for phase in phases if phase != "waiting"]
            result["end"] = end
        job = driver.batch.jobs()[job_id]
        result["job"] = {"state": job.state, "wait_status": job.wait_status}
        result["logs"] = [
            _log(driver.logs(pod, container, options), container, options, clean) for container, options in case.logs
        ]
        result["files"] = sorted(_files(driver.directory(pod)))
        if not case.long:
            # Written when somebody looks while the job runs.
            result["files"] = [name for name in result["files"] if not name.startswith("StartedAt.time")]
        result["scripts"] = _scripts(driver.directory(pod))
    else:
        result["create"]["body"] = str(created.body).strip()
    deleted = driver.delete(pod)
    result["delete"] = {"status": deleted.status}
    result["left behind"] = driver.directory(pod).exists()
    return dict(normal.tree(result, words))


def steady(case: Case, found: dict[str, Any]) -> dict[str, Any]:
    """The transcript without what is chance: how far a job's scripts get that are ended together.

    Whether the batch script or the container's is signalled first decides whether SLURM reports a signal or the shell's
    exit code for one, and whether the shell still writes it down, or the plugin what it made of it.
    """
    if case.name != _CANCELLED or found.get("end") is None:
        return found
    end = [
        {**one, "state": {kind: _ended_by_signal(detail, "exitCode") for kind, detail in one["state"].items()}}
        for one in found["end"]
    ]
    files = [name for name in found["files"] if not name.startswith(("run-job.status", "init-job.status"))]
    return {**found, "end": end, "files": files, "job": _ended_by_signal(found["job"], "wait_status")}


def _ended_by_signal(detail: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**detail, name: "<SIGTERM>"} if detail.get(name) in _SIGTERM else dict(detail)


def _follow(driver: Driver, pod: dict[str, Any], job_id: str) -> tuple[list[Any], Any]:
    """Container states until all have ended: their kinds without repetition, and the last in full."""
    seen: list[Any] = []
    end = time.monotonic() + _PATIENCE
    while True:
        answer = driver.status(pod)
        if answer.status != 200:
            return [*normal.distinct(seen), answer.status], None
        states = [next(iter(each["state"] or {"": None})) for each in answer.body]
        seen.append("+".join(states))
        if driver.batch.jobs()[job_id].finished and all(state == "terminated" for state in states):
            return normal.distinct(seen), answer.body
        if time.monotonic() > end:
            raise AssertionError(f"pod never ended: {seen[-1]}, {driver.batch.jobs()[job_id]}")
        time.sleep(0.5)


def _timeless(containers: Any) -> Any:
    """Container states without what depends on when somebody looked."""
    for container in containers or []:
        for detail in container["state"].values():
            detail.pop("started", None)
    return containers


def _log(answer: Answer, container: str, options: Mapping[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    whole = answer.body if isinstance(answer.body, str) else ""
    shown = {"stripped": clean(whole)} if not options else {"lines": len(whole.split("\n")), "empty": not whole}
    return {"container": container, "options": dict(options), "status": answer.status, **shown}


def _files(directory: Path) -> list[str]:
    found = []
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_file() and not any(part.startswith(".container-") for part in path.parts):
            found.append(f"{name} {path.stat().st_mode & 0o777:o}")
    return found


def _scripts(directory: Path) -> dict[str, Any]:
    """The directives and what is run of the batch script; never its text, which is upstream's."""
    text = (directory / "job.slurm").read_text()
    directives = [line.removeprefix("#SBATCH ").strip() for line in text.splitlines() if line.startswith("#SBATCH")]
    return {"directives": sorted(directives)}


def secret(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """A Secret as it travels to the plugin."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": name, "namespace": "default"}, "data": encoded, "type": "Opaque"}
