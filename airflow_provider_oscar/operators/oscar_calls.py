# SPDX-License-Identifier: Apache-2.0
"""Call a service and wait for its answer, delete one, and work with OSCAR's buckets."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.core.oscar_events import shell_json
from airflow_provider_oscar.core.shapes import as_mappings, parse_json
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.oscar.errors import RouteAbsentError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook, encode_body
from airflow_provider_oscar.hooks.oscar.routes import SYNC_LIMIT, decode_answer

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Bytes of an answer that XCom takes.
ANSWER_LIMIT = 1024 * 1024


class OscarInvokeOperator(BaseOperator):
    """Calls an OSCAR service and returns its answer (``/run``, which needs a serverless backend).

    OSCAR ends a call after 300 seconds; longer work is a job (:class:`OscarJobOperator`). Services on a virtual node
    cannot be called.

    :param service: name of the service. (templated)
    :param payload: a dictionary is sent as JSON (an event), text or bytes as a file. (templated)
    :param answer: ``"text"``, ``"json"`` or ``"base64"``: how the answer is returned.
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :param timeout: seconds or a timedelta of the call.
    :raises DefinitionError: in the DAG file, if ``answer`` is another word.
    """

    template_fields: Sequence[str] = ("service", "payload", "oscar_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"payload": "json"}
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        payload: Mapping[str, object] | str | bytes = "",
        answer: str = "text",
        oscar_conn_id: str = OscarHook.default_conn_name,
        timeout: timedelta | float = SYNC_LIMIT,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_word(answer, ("text", "json", "base64"), f"answer of task {self.task_id!r}")
        self.service = service
        self.payload = payload
        self.answer = answer
        self.oscar_conn_id = oscar_conn_id
        self.timeout = seconds(timeout)

    def execute(self, context: Context) -> object:
        """Call the service."""
        with airflow_errors():
            check_rendered(self)
            hook = OscarHook(self.oscar_conn_id)
            token = "" if hook.uses_oidc or hook.api.service_token else self._token(hook)
            body = self.payload
            if isinstance(body, Mapping):
                data = shell_json(body, f"the payload of task {self.task_id!r}")
            else:
                data = encode_body(body if isinstance(body, bytes) else body.encode())
            flow = hook.run_service(self.service, data, token=token, timeout=self.timeout)
            return self._decoded(decode_answer(hook.run(flow).content))

    def _token(self, hook: OscarHook) -> str:
        found = hook.run(hook.get_service(self.service))
        if found is None:
            raise DefinitionError(f"{hook.display_name}: there is no OSCAR service {self.service!r}")
        return str(found.get("token") or "")

    def _decoded(self, content: bytes) -> object:
        if len(content) > ANSWER_LIMIT:
            raise PermanentError(
                f"service {self.service!r} answered {len(content)} bytes, XCom takes {ANSWER_LIMIT}; let it write an "
                "object instead"
            )
        if self.answer == "base64":
            return base64.b64encode(content).decode()
        text = content.decode("utf-8", "replace").replace("\0", "")
        if self.answer == "text":
            return text
        try:
            return parse_json(text)
        except ValueError as error:
            raise PermanentError(f"service {self.service!r} did not answer JSON but {text[:200]!r}") from error


class OscarDeleteServiceOperator(BaseOperator):
    """Deletes an OSCAR service, and says which of its buckets went with it and which stayed.

    OSCAR deletes the input and output buckets of a service with every object in them, but for one that is mounted.

    :param service: name of the service. (templated)
    :param delete_buckets: must be True, since OSCAR deletes them.
    :param running_jobs: ``"refuse"`` (default) fails while jobs of the service run, ``"cancel"`` ends them with it.
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :raises DefinitionError: in the DAG file, if the arguments contradict each other.
    """

    template_fields: Sequence[str] = ("service", "oscar_conn_id")
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        delete_buckets: bool = False,
        running_jobs: str = "refuse",
        oscar_conn_id: str = OscarHook.default_conn_name,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not delete_buckets:
            raise DefinitionError(
                f"task {self.task_id!r} would delete a service, and OSCAR deletes its input and output buckets with "
                "all objects; say delete_buckets=True if that is meant"
            )
        require_word(running_jobs, ("refuse", "cancel"), f"running_jobs of task {self.task_id!r}")
        self.service = service
        self.delete_buckets = delete_buckets
        self.running_jobs = running_jobs
        self.oscar_conn_id = oscar_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the service; return what became of it and its buckets."""
        with airflow_errors():
            check_rendered(self)
            hook = OscarHook(self.oscar_conn_id)
            found = hook.run(hook.get_service(self.service))
            if found is None:
                return {"service": self.service, "result": "absent", "deleted_buckets": [], "kept_buckets": []}
            active = [job.name for job in hook.run(hook.list_jobs(self.service)).values() if job.phase.active]
            if active and self.running_jobs == "refuse":
                raise TransientError(
                    f"{hook.display_name}: service {self.service!r} still has {len(active)} running job(s), such as "
                    f"{active[0]!r}; wait for them, or say running_jobs='cancel'"
                )
            before = _listed(hook)
            hook.run(hook.delete_service(self.service))
            own = _buckets(found) if before is None else _buckets(found) & before
            # Before 3.6, OSCAR neither shows buckets nor deletes them.
            after = own if before is None else _listed(hook) or set()
            gone, kept = sorted(own - after), sorted(own & after)
            self.log.info("Service %s was deleted, with the buckets %s", self.service, gone or "none")
            if kept:
                self.log.warning("The buckets %s of service %s are still there", kept, self.service)
            return {"service": self.service, "result": "deleted", "deleted_buckets": gone, "kept_buckets": kept}


class OscarBucketOperator(BaseOperator):
    """Creates or deletes a bucket of OSCAR's own store, or changes who sees it.

    :param bucket: name of the bucket. (templated)
    :param action: ``create`` (one that exists is left as it is but for its visibility), ``update`` or ``delete``.
    :param visibility: ``private``, ``public`` or ``restricted`` to ``users``.
    :param users: those who see a restricted bucket. (templated)
    :param delete_objects: must be True for ``delete``, since the objects go with it.
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :raises DefinitionError: in the DAG file, if the arguments contradict each other.
    """

    template_fields: Sequence[str] = ("bucket", "users", "oscar_conn_id")
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        bucket: str,
        action: str = "create",
        visibility: str = "private",
        users: Sequence[str] = (),
        delete_objects: bool = False,
        oscar_conn_id: str = OscarHook.default_conn_name,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_word(action, ("create", "update", "delete"), f"action of task {self.task_id!r}")
        require_word(visibility, ("private", "public", "restricted"), f"visibility of task {self.task_id!r}")
        if action == "delete" and not delete_objects:
            raise DefinitionError(
                f"task {self.task_id!r} would delete a bucket and its objects; say delete_objects=True if that is meant"
            )
        self.bucket = bucket
        self.action = action
        self.visibility = visibility
        self.users = users
        self.delete_objects = delete_objects
        self.oscar_conn_id = oscar_conn_id

    def execute(self, context: Context) -> str:
        """Do it; return ``created``, ``updated``, ``deleted`` or ``absent``."""
        with airflow_errors():
            check_rendered(self)
            hook = OscarHook(self.oscar_conn_id)
            there = self.bucket in {str(each.get("bucket_name")) for each in hook.run(hook.list_buckets())}
            if self.action == "delete":
                if there:
                    hook.run(hook.delete_bucket(self.bucket))
                return "deleted" if there else "absent"
            if self.action == "create" and not there:
                hook.run(hook.create_bucket(self.bucket, visibility=self.visibility, users=tuple(self.users)))
                return "created"
            hook.run(hook.update_bucket(self.bucket, visibility=self.visibility, users=tuple(self.users)))
            return "updated"


def _listed(hook: OscarHook) -> set[str] | None:
    """Names of the buckets there are; None where the server has no route for them."""
    try:
        return {str(each.get("bucket_name")) for each in hook.run(hook.list_buckets())}
    except RouteAbsentError:
        return None


def _buckets(service: Mapping[str, Any]) -> set[str]:
    """Buckets of a service, as its server holds it; those of its users too, where each has one."""
    users = service.get("bucket_list")
    own = {str(each) for each in users if each} if isinstance(users, list) else set()
    return own | {
        str(each.get("path") or "").strip("/").split("/")[0]
        for each in (*as_mappings(service.get("input")), *as_mappings(service.get("output")))
        if str(each.get("storage_provider")).split(".")[0].lower() == "minio"
    }
