# SPDX-License-Identifier: Apache-2.0
"""The callbacks of Airflow's KubernetesPodOperator, called by the operators whose jobs are pods.

What is called, with which arguments and in which order is that of ``KubernetesPodOperatorCallback`` of the provider
``cncf.kubernetes``, so that a class written for the one serves the other. All are called on a worker, in mode ``sync``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pod_merge import check_virtual_pod
from airflow_provider_oscar.core.pods import CONTAINER_NAME

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk import Context
    from kubernetes.client import V1Pod

    from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

    Callbacks: TypeAlias = type[KubernetesPodOperatorCallback] | Sequence[type[KubernetesPodOperatorCallback]] | None


class PodCallbacks:
    """The callbacks of one try of a task.

    :param callbacks: classes with the methods of ``KubernetesPodOperatorCallback``.
    :param operator: whose they are.
    :param hook: reaches the cluster.
    :param context: of the task.
    """

    def __init__(
        self,
        callbacks: Sequence[type[KubernetesPodOperatorCallback]],
        operator: object,
        hook: InterLinkHook,
        context: Context,
    ) -> None:
        self._callbacks, self._operator = callbacks, operator
        self._hook, self._context = hook, context
        self._pod: V1Pod | None = None
        self._called: set[str] = set()
        for each in callbacks:
            each.on_sync_client_creation(client=hook.core, operator=cast("KubernetesPodOperator", operator))

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def manifest_created(self, pod: Mapping[str, object], node: str) -> Mapping[str, object]:
        """Let the callbacks see the pod before it is created, and return it as they leave it.

        :param pod: as it would be created.
        :param node: virtual node; empty for an ordinary one.
        :raises DefinitionError: if they put in what a virtual node would lose.
        """
        if not self._callbacks:
            return pod
        request = as_object(pod)
        self._call("on_pod_manifest_created", pod_request=request)
        changed: Mapping[str, object] = as_fields(request)
        if node:
            check_virtual_pod(changed)
        return changed

    def created(self, name: str) -> None:
        """Tell that the pod was created."""
        self._tell("on_pod_creation", name)

    def started(self, name: str) -> None:
        """Tell that the pod runs; once, however often it is seen to."""
        if "on_pod_starting" not in self._called:
            self._tell("on_pod_starting", name)

    def resuming(self, name: str, event: Mapping[str, object]) -> None:
        """Tell that the task goes on after it was deferred.

        :param name: of the pod.
        :param event: of the trigger.
        """
        self._tell("on_operator_resuming", name, event=dict(event))

    def lines(self, name: str, lines: Sequence[str]) -> None:
        """Show lines of the log."""
        for line in lines:
            for each in self._callbacks:
                each.progress_callback(
                    line=line,
                    client=self._hook.core,
                    mode=_mode(),
                    container_name=CONTAINER_NAME,
                    timestamp=None,
                    pod=self._seen(name),
                )

    def completed(self, name: str) -> None:
        """Tell that the job has ended and what became of it is decided; the pod is still there."""
        self._tell("on_pod_completion", name)
        self._tell("on_pod_teardown", name)

    def cleaned_up(self, name: str) -> None:
        """Tell that the pod was removed, or left as ``keep_pod`` says, if it was told that the job has ended."""
        if "on_pod_completion" in self._called:
            self._call("on_pod_cleanup", pod=self._seen(name))

    def _tell(self, method: str, name: str, **more: object) -> None:
        if self._callbacks:
            from kubernetes.client.exceptions import ApiException
            from urllib3.exceptions import HTTPError

            # What cannot be seen now is told of as it was seen last: a callback decides nothing about the job.
            with suppress(ApiException, HTTPError):
                self._pod = self._hook.core.read_namespaced_pod(name, self._hook.namespace)
            self._call(method, pod=self._seen(name), **more)

    def _seen(self, name: str) -> V1Pod:
        """The pod as it was seen last; its name alone if it never was."""
        if self._pod is None:
            self._pod = as_object({"metadata": {"name": name, "namespace": self._hook.namespace}})
        return self._pod

    def _call(self, method: str, **details: object) -> None:
        self._called.add(method)
        for each in self._callbacks:
            getattr(each, method)(
                **details, client=self._hook.core, mode=_mode(), operator=self._operator, context=self._context
            )


def checked_callbacks(task_id: str, given: Callbacks) -> tuple[type[KubernetesPodOperatorCallback], ...]:
    """Return the argument as a tuple.

    :param task_id: for messages.
    :param given: one class, several, or None.
    :raises DefinitionError: if it is something else.
    """
    found = () if given is None else (given,) if isinstance(given, type) else tuple(given)
    for each in found:
        if not isinstance(each, type) or not callable(getattr(each, "on_pod_completion", None)):
            raise DefinitionError(
                f"callbacks of task {task_id!r} hold {each!r}; expected subclasses of "
                "airflow.providers.cncf.kubernetes.callbacks.KubernetesPodOperatorCallback (the class, no instance)"
            )
    return found


def as_object(pod: Mapping[str, object]) -> V1Pod:
    """Return a pod as the Kubernetes client has it."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    return PodGenerator.deserialize_model_dict(dict(pod))


def as_fields(pod: V1Pod) -> Mapping[str, object]:
    """Return what :func:`as_object` took."""
    from kubernetes.client import ApiClient

    found: Mapping[str, object] = ApiClient().sanitize_for_serialization(pod)
    return found


def _mode() -> str:
    from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode

    return ExecutionMode.SYNC
