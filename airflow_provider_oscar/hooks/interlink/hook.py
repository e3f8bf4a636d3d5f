# SPDX-License-Identifier: Apache-2.0
"""Kubernetes as far as interLink's virtual nodes offer it: pods, their secrets, their logs, node health.

No exec, no attach, no port-forward and no usable time stamps in logs exist there, so nothing here relies
on them. Pods go in and come out as plain dictionaries: the client's model classes would refuse words that
interLink makes up. The Kubernetes client is imported when it is first used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_oscar.core.errors import (
    LostContactError,
    OscarProviderError,
    TransientError,
)
from airflow_provider_oscar.core.logs import LogText, read_bounded
from airflow_provider_oscar.core.nodes import VirtualNode
from airflow_provider_oscar.core.orphans import SecretInfo
from airflow_provider_oscar.core.pods import CONTAINER_NAME, build_secret
from airflow_provider_oscar.core.podstatus import OWNER_LABEL, PodStatus, node_unready_reason
from airflow_provider_oscar.core.shapes import as_list, as_mapping, described, parse_json
from airflow_provider_oscar.hooks.base import NamedByConnection
from airflow_provider_oscar.hooks.interlink.bounds import read_whole
from airflow_provider_oscar.hooks.interlink.config import core_api, extra_field
from airflow_provider_oscar.hooks.interlink.errors import RefusedError, client_errors, is_own, kubernetes_refusal
from airflow_provider_oscar.hooks.slurm import SlurmHook

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from kubernetes.client import CoreV1Api

#: Seconds to connect, and to wait for an answer.
_TIMEOUT = (10, 60)
_LISTED_AT_ONCE = 500
#: Pages of one list; a cluster has 150 000 pods at most.
_MOST_PAGES = 1000
#: Seconds between the attempts of a call on a worker.
PAUSES = (0.5, 2.0, 6.0)
#: Label that :func:`~airflow_provider_oscar.core.pods.build_pod` gives every pod, and this hook every secret.
OURS = "app.kubernetes.io/managed-by=airflow-provider-oscar"


class InterLinkHook(NamedByConnection):
    """One Kubernetes cluster with virtual nodes; blocking, so triggers call it through ``asyncio.to_thread``.

    Connection ``interlink``, or ``kubernetes`` with the same extra fields: one of ``in_cluster``,
    ``kube_config_path`` or ``kube_config_secret`` (JSON or YAML, which Airflow masks by its name; ``kube_config`` means
    the same but is readable through the connections API), else the default kube config; ``cluster_context``,
    ``namespace``, ``verify_ssl``.

    :param interlink_conn_id: Airflow connection.
    :param namespace: instead of the connection's own.
    :param connection: the connection itself, where it was resolved already (in a trigger).
    """

    conn_name_attr = "interlink_conn_id"
    default_conn_name = "interlink_default"
    conn_type = "interlink"
    hook_name = "Kubernetes with interLink"

    def __init__(
        self,
        interlink_conn_id: str = default_conn_name,
        *,
        namespace: str | None = None,
        connection: Connection | None = None,
    ) -> None:
        super().__init__()
        self.interlink_conn_id = interlink_conn_id
        self._namespace = namespace
        self._connection = connection
        self._worked = False
        #: Seconds to wait before a call is made again that could not be answered; whoever polls needs none.
        self.pauses: tuple[float, ...] = PAUSES
        self.sleep: Callable[[float], None] = time.sleep

    @classmethod
    async def resolved(cls, interlink_conn_id: str, *, namespace: str | None = None) -> InterLinkHook:
        """Return a hook whose connection was read without blocking the event loop, and which repeats no call."""
        connection = await cls.aget_connection(interlink_conn_id)
        made = cls(interlink_conn_id, namespace=namespace, connection=connection)
        made.pauses = ()
        return made

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self._connection or self.get_connection(self.interlink_conn_id)

    @cached_property
    def namespace(self) -> str:
        """Where pods and secrets are made."""
        return self._namespace or str(extra_field(self.connection, "namespace") or "default")

    @cached_property
    def core(self) -> CoreV1Api:
        """The client; its pool is safe to share between threads."""
        return core_api(self.connection, self.display_name)

    def create_or_adopt_pod(self, pod: Mapping[str, Any], secret: Mapping[str, str] | None = None) -> bool:
        """Create the pod, then the secret it waits for; False if a pod of the name exists already.

        In this order, so that whoever is killed in between leaves no secret that nobody would remove: the secret is
        born as its pod's, and Kubernetes removes it with the pod. A kubelet waits for a secret that is not there yet;
        interLink's does so for five minutes.

        :param pod: from :func:`~airflow_provider_oscar.core.pods.build_pod`.
        :param secret: contents of the Secret of the same name, in clear.
        """
        name = str(pod["metadata"]["name"])
        existing = self.read_pod(name)
        if existing is not None and not existing.deleting:
            return False
        if existing is not None:
            self.await_deleted(name)
        action = f"create pod {name!r} in namespace {self.namespace!r}"
        made = self._call(action, self.core.create_namespaced_pod, self.namespace, dict(pod), absent=(409,))
        if made is None:
            return False
        if secret is not None:
            uid = str(self._json(made).get("metadata", {}).get("uid") or "")
            try:
                self._put_secret(name, secret, uid, str((pod["metadata"].get("labels") or {}).get(OWNER_LABEL) or ""))
            except OscarProviderError:
                self._delete(self.core.delete_namespaced_pod, name, f"delete pod {name!r}")
                raise
        return True

    def complete_pod(self, name: str, uid: str, secret: Callable[[], Mapping[str, str]], *, owner: str = "") -> bool:
        """Give a pod that waits the secret that whoever made it did not come to; False if it has one.

        :param name: of both.
        :param uid: of the pod.
        :param secret: makes its contents, in clear; called only if there is none.
        :param owner: label of the pod that says whose it is.
        """
        action = f"look for secret {name!r} in namespace {self.namespace!r}"
        # Written without contents on trial: that it is there is seen without the right to read secrets.
        trial = build_secret(name, {}, uid, owner)
        made = self._call(
            action, self.core.create_namespaced_secret, self.namespace, trial, absent=(409,), dry_run="All"
        )
        if made is None:
            return False
        self._put_secret(name, secret(), uid, owner)
        return True

    def read_pod(self, name: str) -> PodStatus | None:
        """The pod's status, or None if there is none of the name."""
        action = f"read pod {name!r} in namespace {self.namespace!r}"
        answer = self._call(action, self.core.read_namespaced_pod, name, self.namespace, absent=(404,))
        if answer is None:
            return None
        status = PodStatus.from_api(self._json(answer))
        if status.name != name:
            raise self._other(action)
        return status

    def delete_pod(self, name: str) -> bool:
        """Delete pod and secret; interLink cancels the SLURM job. False if neither was there.

        The plugin removes the job's directory with the pod, so read the log before.
        """
        try:
            pod = self._delete(self.core.delete_namespaced_pod, name, f"delete pod {name!r}")
        finally:  # a pod that has to stay keeps no access to the stores
            secret = self.delete_secret(name)
        return pod or secret

    def await_deleted(self, name: str, *, timeout: float = 120.0) -> None:
        """Wait until a deleted pod is gone, so that its name can be used again.

        :param timeout: seconds.
        :raises TransientError: if it is still there.
        """
        pause, waited = 0.5, 0.0
        while self.read_pod(name) is not None:
            if waited >= timeout:
                raise TransientError(
                    f"{self.display_name}: pod {name!r} was deleted but is still there after {timeout:.0f} s; "
                    "its virtual node may be down"
                )
            self.sleep(pause)
            waited += pause
            pause = min(pause * 2, 5.0)

    def read_log(self, name: str, container: str = CONTAINER_NAME) -> LogText | None:
        """The log without interLink's own lines, or None while there is none; its end alone if it is very long.

        Always asked for whole: with tail, time stamps or "since" the SLURM plugin answers wrongly or not at all. What
        is kept of it in memory is bounded.
        """
        with self._open_log(name, container) as chunks:
            return None if chunks is None else read_bounded(chunks)

    def log_chunks(self, name: str, container: str = CONTAINER_NAME) -> Iterator[bytes]:
        """The whole log as it is, in pieces; nothing while there is none."""
        with self._open_log(name, container) as chunks:
            yield from chunks or ()

    @contextmanager
    def _open_log(self, name: str, container: str) -> Iterator[Iterator[bytes] | None]:
        action = f"read the log of pod {name!r}"
        # A waiting container gives 400, a virtual node that is away or knows no log 500 or 502.
        answer = self._call(
            action,
            self.core.read_namespaced_pod_log,
            name,
            self.namespace,
            absent=(400, 404, 500, 502, 503, 504),
            foreign=True,
            container=container,
            insecure_skip_tls_verify_backend=True,
        )
        if answer is None:
            yield None
            return
        try:
            with client_errors(self.display_name, action):
                yield answer.stream(65_536)
        finally:
            answer.close()

    def list_pods(self, *, node: str = "", label_selector: str = "") -> list[PodStatus]:
        """Pods of the namespace, of one node or all, and with matching labels."""
        found = self._list(
            f"list pods in namespace {self.namespace!r}",
            self.core.list_namespaced_pod,
            self.namespace,
            field_selector=f"spec.nodeName={node}" if node else "",
            label_selector=label_selector,
        )
        pods = [PodStatus.from_api(pod) for pod in found]
        # Also filtered here: not every API double knows field selectors.
        return [pod for pod in pods if not node or pod.node in ("", node)]

    def list_secrets(self, *, label_selector: str = OURS) -> list[SecretInfo]:
        """Names and owners of secrets of the namespace; what is in them is not kept."""
        action = f"list secrets in namespace {self.namespace!r}"
        found = self._list(
            action, self.core.list_namespaced_secret, self.namespace, field_selector="", label_selector=label_selector
        )
        return [SecretInfo.from_api(secret) for secret in found]

    def delete_secret(self, name: str) -> bool:
        """Delete a secret; False if it was not there."""
        return self._delete(self.core.delete_namespaced_secret, name, f"delete secret {name!r}")

    def nodes(self, *, label_selector: str = "") -> list[VirtualNode]:
        """Virtual nodes of the cluster with what they offer, in the order of their names.

        :param label_selector: further labels they must have.
        """
        found = self._list("list nodes", self.core.list_node, field_selector="", label_selector=label_selector)
        nodes = (VirtualNode.from_api(node) for node in found)
        return sorted((node for node in nodes if node.virtual), key=lambda node: node.name)

    @cached_property
    def slurm(self) -> SlurmHook | None:
        """SLURM itself, where the extra field ``slurm_conn_id`` says how to ask it."""
        conn_id = str(extra_field(self.connection, "slurm_conn_id") or "")
        return SlurmHook(conn_id) if conn_id else None

    def node_status(self, node: str) -> str:
        """Return why the node takes no work, or an empty text if it is Ready."""
        answer = self._call(f"read node {node!r}", self.core.read_node, node, absent=(404,))
        return f"there is no node {node!r}" if answer is None else node_unready_reason(self._json(answer))

    def test_connection(self) -> tuple[bool, str]:
        """Check address, credentials and namespace, for the Test button."""
        self.pauses = ()
        try:
            count = len(self.list_pods())
        except OscarProviderError as error:
            return False, str(error)
        return True, f"Kubernetes answers; {count} pod(s) in namespace {self.namespace!r}"

    def _put_secret(self, name: str, data: Mapping[str, str], uid: str, owner: str = "") -> None:
        body = build_secret(name, data, uid, owner)
        action = f"create secret {name!r} in namespace {self.namespace!r}"
        for _ in range(2):
            made = self._call(action, self.core.create_namespaced_secret, self.namespace, body, absent=(409,))
            if made is not None:
                return
            # Left by an earlier pod of the name; what it allows may have ended.
            self.delete_secret(name)
        raise TransientError(f"{self.display_name}: secret {name!r} exists and does not go away")

    def _delete(self, call: Callable[..., object], name: str, action: str) -> bool:
        action = f"{action} in namespace {self.namespace!r}"
        return self._call(action, call, name, self.namespace, absent=(404,)) is not None

    def _list(
        self, action: str, call: Callable[..., object], *args: object, **selectors: str
    ) -> list[Mapping[str, object]]:
        """Return the items of all pages; begins again where the server has forgotten the page that comes next."""
        given: dict[str, Any] = {name: text for name, text in selectors.items() if text}
        for _ in range(3):
            found: list[Mapping[str, object]] = []
            follow = ""
            for _ in range(_MOST_PAGES):
                more: dict[str, Any] = {"_continue": follow} if follow else {}
                answer = self._call(action, call, *args, absent=(410,), limit=_LISTED_AT_ONCE, **more, **given)
                if answer is None:
                    break
                body = self._json(answer)
                if "items" not in body:
                    # Whoever answers so is not an API server; its word must not make all pods look gone.
                    raise self._other(action)
                found += [item for item in as_list(body["items"]) if isinstance(item, dict)]
                follow = str(as_mapping(body.get("metadata")).get("continue") or "")
                if not follow:
                    return found
            else:
                raise self._other(action)
        raise TransientError(f"{self.display_name}: Kubernetes forgot the pages in between to {action}; try again")

    def _other(self, action: str) -> LostContactError:
        return LostContactError(
            f"{self.display_name}: the answer to {action} is none of a Kubernetes API; check the server in the kube "
            "config"
        )

    def _json(self, answer: Any) -> dict[str, Any]:
        with client_errors(self.display_name, "read an answer"):
            data = read_whole(answer, self.display_name)
        try:
            body = parse_json(data)
        except ValueError as error:
            raise LostContactError(f"{self.display_name}: Kubernetes answered no JSON but {described(data)}") from error
        return body if isinstance(body, dict) else {}

    def _call(
        self,
        action: str,
        call: Callable[..., object],
        *args: object,
        absent: tuple[int, ...] = (),
        foreign: bool = False,
        **query: object,
    ) -> Any:
        """Make one call, and repeat it while the server cannot answer; None for a status in ``absent``.

        What is not there, or is there already, is so by Kubernetes' own word alone, and not by a proxy's page; but with
        ``foreign``, of what is fetched from elsewhere.

        A refused login is repeated as well: API servers say 401 for seconds while a token is renewed. All calls may be
        repeated: what was created before a connection broke is found as being there (409).
        """
        pauses = iter(self.pauses)
        while True:
            error: OscarProviderError
            try:
                with client_errors(self.display_name, action):
                    answer = call(*args, **query, **_RAW)
                self._worked = True
                return answer
            except RefusedError as refused:
                if refused.status in absent and (foreign or is_own(refused.body)):
                    return None
                if refused.status in absent:
                    raise self._other(action) from refused
                error = kubernetes_refusal(
                    refused.status,
                    refused.body,
                    action=action,
                    display_name=self.display_name,
                    worked_before=self._worked,
                    call=call,
                )
                doubtful = refused.status in (401, 403) or isinstance(error, TransientError)
            except TransientError as lost:
                error, doubtful = lost, True
            pause = next(pauses, None) if doubtful else None
            if pause is None:
                raise error
            self.log.info("Tried again in %s s: %s", pause, error)
            self.sleep(pause)


#: Answers as they come: decoding them into the client's classes loses what interLink adds.
_RAW: dict[str, object] = {"_preload_content": False, "_request_timeout": _TIMEOUT}
