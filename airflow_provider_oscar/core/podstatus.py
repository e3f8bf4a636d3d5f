# SPDX-License-Identifier: Apache-2.0
"""What a pod's status says, in our words; tolerant of everything interLink's virtual node puts there.

:mod:`~airflow_provider_oscar.core.pods` writes pods, this module reads them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.shapes import as_list, as_mapping
from airflow_provider_oscar.core.times import read_iso

#: Annotation in which the virtual node keeps the SLURM job id.
JOB_ID_ANNOTATION = "JobID"
#: Label that says whose pod it is: deployment, digest of the request, and generation.
OWNER_LABEL = "airflow-provider-oscar/owner"
#: Label that says that the pod stays when its job has ended: ``on_failure`` or ``always``.
KEEP_LABEL = "airflow-provider-oscar/keep"
#: Annotation that says which task waits for the pod: JSON with ``dag_id``, ``run_id``, ``task_id`` and ``map_index``.
TASK_ANNOTATION = "airflow-provider-oscar/task"
#: Volume of the pod that holds its secret.
SECRET_VOLUME = "airflow-oscar"
#: Non-standard words of interLink for a pod's phase; the others are Kubernetes' own.
_PHASES = {"initializing": JobPhase.PENDING, "ready": JobPhase.RUNNING}


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One look at a pod.

    :param name: the pod's name.
    :param phase: normalised; a word that is not known is UNKNOWN.
    :param raw: the API's own word.
    :param uid: tells two pods of one name apart.
    :param reason: of the pod or its container, in one text; foreign.
    :param exit_code: highest of the terminated containers, or None; SLURM's raw value for jobs that never ran.
    :param slurm_job_id: empty until the job was submitted.
    :param node: the node it is bound to.
    :param owner: value of :data:`OWNER_LABEL`; empty if it has none.
    :param deleting: removal was asked for and is not finished.
    :param created_at: when it was made, or None if that cannot be read.
    :param secret: name of the secret it was given, or empty.
    :param keep: value of :data:`KEEP_LABEL`, or empty.
    :param task: value of :data:`TASK_ANNOTATION`, or empty.
    :param without_job: a virtual node has it, and what is behind the node says that it has no job of it: one is being
        submitted, or was refused, of which interLink before 0.6 says nothing more.
    """

    name: str
    phase: JobPhase
    raw: str = ""
    uid: str = ""
    reason: str = ""
    exit_code: int | None = None
    slurm_job_id: str = ""
    node: str = ""
    deleting: bool = False
    owner: str = ""
    created_at: datetime | None = None
    secret: str = ""
    keep: str = ""
    task: str = ""
    without_job: bool = False

    @classmethod
    def from_api(cls, pod: Mapping[str, object]) -> PodStatus:
        """Read a pod as the API gives it; whatever is missing or of another form is passed over."""
        metadata, spec, status = (as_mapping(pod.get(part)) for part in ("metadata", "spec", "status"))
        raw = str(status.get("phase") or "")
        phase = _PHASES.get(raw.casefold()) or JobPhase(raw)
        words, codes = [str(status.get("reason") or ""), str(status.get("message") or "")], []
        words += [*_unscheduled(status), *_uninitialized(status)] if phase is JobPhase.PENDING else []
        states = [as_mapping(as_mapping(each).get("state")) for each in as_list(status.get("containerStatuses"))]
        job_id = str(as_mapping(metadata.get("annotations")).get(JOB_ID_ANNOTATION) or "")
        for state in states:
            for part in (as_mapping(state.get("terminated")), as_mapping(state.get("waiting"))):
                words += [str(part.get("reason") or ""), str(part.get("message") or "")]
                if isinstance(part.get("exitCode"), int):
                    codes.append(part["exitCode"])
        return cls(
            name=str(metadata.get("name") or ""),
            phase=phase,
            raw=raw,
            uid=str(metadata.get("uid") or ""),
            reason=": ".join(dict.fromkeys(_decode_message(word) for word in words if word)),
            exit_code=max(codes, default=None),
            slurm_job_id=job_id,
            node=str(spec.get("nodeName") or ""),
            deleting=bool(metadata.get("deletionTimestamp")),
            owner=str(as_mapping(metadata.get("labels")).get(OWNER_LABEL) or ""),
            created_at=read_created(metadata.get("creationTimestamp")),
            secret=_secret(spec),
            keep=str(as_mapping(metadata.get("labels")).get(KEEP_LABEL) or ""),
            task=str(as_mapping(metadata.get("annotations")).get(TASK_ANNOTATION) or ""),
            # A kubelet always says what a container of a pod waits for.
            without_job=phase is JobPhase.PENDING and not job_id and bool(states) and not any(states),
        )


#: interLink's own, since 0.5: of the last ping. Its Ready says "kubelet is pending." whatever is wrong.
_PING_CONDITION = "InterlinkConnectivity"


def node_unready_reason(node: Mapping[str, object]) -> str:
    """Return why a node takes no work, or an empty text if it is Ready."""
    status, spec = as_mapping(node.get("status")), as_mapping(node.get("spec"))
    if spec.get("unschedulable"):
        return "the node is cordoned"
    conditions = {str(each.get("type")): each for each in map(as_mapping, as_list(status.get("conditions")))}
    ready, ping = conditions.get("Ready"), conditions.get(_PING_CONDITION, {})
    if ready is not None:
        if ready.get("status") == "True":
            return ""
        told = ping if ping.get("status") == "False" else {}
        why = told.get("message") or ready.get("message") or ready.get("reason") or f"Ready is {ready.get('status')}"
        return f"the node is not ready: {why}"
    return "the node does not say that it is ready"


def read_created(value: object) -> datetime | None:
    """Read a ``creationTimestamp``; None if it is not a time."""
    try:
        return read_iso(str(value or ""))
    except ValueError:
        return None


def _unscheduled(status: Mapping[str, Any]) -> list[str]:
    """Why the scheduler finds no node for a pod: the node is not there or not ready, or nothing is free."""
    for condition in map(as_mapping, as_list(status.get("conditions"))):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return [str(condition.get("reason") or ""), str(condition.get("message") or "")]
    return []


def _uninitialized(status: Mapping[str, Any]) -> list[str]:
    """What an init container waits for; of its turn the others say the same."""
    words = []
    for container in map(as_mapping, as_list(status.get("initContainerStatuses"))):
        waiting = as_mapping(as_mapping(container.get("state")).get("waiting"))
        if waiting.get("reason") != "PodInitializing":
            words += [str(waiting.get("reason") or ""), str(waiting.get("message") or "")]
    return words


def _secret(spec: Mapping[str, Any]) -> str:
    for volume in map(as_mapping, as_list(spec.get("volumes"))):
        if volume.get("name") == SECRET_VOLUME:
            return str(as_mapping(volume.get("secret")).get("secretName") or "")
    return ""


def _decode_message(text: str) -> str:
    """What sbatch or the plugin wrote, out of interLink's wrapping, which repeats it and escapes it for HTML."""
    wrapping, found, answer = text.rpartition("Body: ")
    if not found or "HTTP InterLink session" not in wrapping:
        return text
    return html.unescape(answer).strip() or text
