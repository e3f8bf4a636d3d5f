# SPDX-License-Identifier: Apache-2.0
"""Call a service that OSCAR exposes, once it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.checks import is_template, seconds
from airflow_provider_oscar.core.errors import (
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.oscar.exposed import exposed_service, is_ready, last_lines
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.routes import SYNC_LIMIT

if TYPE_CHECKING:
    import httpx
    from airflow.sdk import Context

#: Bytes of an answer that XCom takes.
_ANSWER_LIMIT = 1024 * 1024
#: What a proxy answers while there is nothing behind it.
_NOT_YET = frozenset({502, 503, 504})
_NO_CONTENT = 204
#: Methods of which sending twice may do twice, and seconds within which a proxy says that there is nothing behind it.
_ONCE = frozenset({"POST", "PATCH"})
_AT_ONCE = 5.0


class OscarExposedServiceOperator(BaseOperator):
    """Waits until an exposed service is ready, calls it, and returns its answer.

    It holds a worker for the length of the call; ``OscarExposedServiceSensor`` waits without one.

    :param service: name of the service, which has ``expose.api_port``. (templated)
    :param path: below the service, query included. (templated)
    :param method: of the request.
    :param payload: a dictionary is sent as JSON, text as it is. (templated)
    :param answer: ``"json"`` or ``"text"``: how the answer is returned.
    :param start: start the service first, if it was stopped (OSCAR 4.1).
    :param stop_after: stop it after the call, so that it costs nothing.
    :param wait: seconds that the service has to get ready.
    :param timeout: seconds or a timedelta of the call.
    :param oscar_conn_id: connection of type ``oscar``. (templated)
    :raises DefinitionError: in the DAG file, if ``answer`` is another word.
    """

    template_fields: Sequence[str] = ("service", "path", "payload", "oscar_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"payload": "json"}
    ui_color = "#d7ecf7"
    #: Waits between two polls, for tests.
    sleep = staticmethod(time.sleep)
    clock = staticmethod(time.monotonic)

    @checks_arguments
    def __init__(
        self,
        *,
        service: str,
        path: str = "",
        method: str = "POST",
        payload: Mapping[str, object] | str = "",
        answer: str = "json",
        start: bool = False,
        stop_after: bool = False,
        wait: float = 300.0,
        timeout: timedelta | float = SYNC_LIMIT,
        oscar_conn_id: str = OscarHook.default_conn_name,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_word(answer, ("json", "text"), f"answer of task {self.task_id!r}")
        if not is_template(method):
            require_word(method.upper(), HTTPMethod, f"method of task {self.task_id!r}")
        self.service = service
        self.path = path
        self.method = method
        self.payload = payload
        self.answer = answer
        self.start = start
        self.stop_after = stop_after
        self.wait = wait
        self.timeout = seconds(timeout)
        self.oscar_conn_id = oscar_conn_id

    def execute(self, context: Context) -> object:
        """Call the service."""
        with airflow_errors():
            check_rendered(self)
            hook = OscarHook(self.oscar_conn_id, patient=True)
            if self.start:
                hook.run(hook.control_service(self.service, "start"))
            try:
                return self._called(hook)
            finally:
                if self.stop_after:
                    self._stop(hook)

    def _stop(self, hook: OscarHook) -> None:
        """Stop the service; that it goes on is said, and costs neither the answer nor the reason of a failure."""
        try:
            hook.run(hook.control_service(self.service, "stop"))
        except OscarProviderError as error:
            self.log.error("Service %s was not stopped and goes on: %s", self.service, error)

    def _called(self, hook: OscarHook) -> object:
        found = hook.run(exposed_service(hook, self.service))
        deadline = self.clock() + self.wait
        while True:
            if hook.run(is_ready(hook, found)):
                called = self.clock()
                answer = hook.run(
                    hook.call_exposed(
                        self.service,
                        self.path,
                        method=self.method,
                        body=self._body(),
                        headers={"Content-Type": "application/json"} if isinstance(self.payload, Mapping) else None,
                        token=found.token,
                        timeout=self.timeout,
                    )
                )
                if answer.status_code not in _NOT_YET:
                    return self._decoded(answer)
                self._refuse_repeat(answer.status_code, self.clock() - called)
            if self.clock() >= deadline:
                raise TransientError(
                    f"{hook.display_name}: service {self.service!r} did not answer within {self.wait:.0f} seconds; "
                    f"`airflow oscar services get {self.service}` says more. {self._said(hook)}"
                )
            self.sleep(2.0)

    def _refuse_repeat(self, status: int, seconds: float) -> None:
        """Do not send again what the service may have begun to do: a proxy gave up on it, or it ended meanwhile."""
        if self.method.upper() not in _ONCE or (status != HTTPStatus.GATEWAY_TIMEOUT and seconds < _AT_ONCE):
            return
        raise TransientError(
            f"service {self.service!r} answered {status} to {self.method} {self.path!r} after {seconds:.0f} s, and may "
            "have begun its work, so it is not called again by itself; let what takes longer than the proxy before it "
            "waits be a job (OscarJobOperator)"
        )

    def _said(self, hook: OscarHook) -> str:
        """What the service printed last: a program that ends is started again and again, and never called failed."""
        try:
            return f"Last lines of its log: {hook.run(last_lines(hook, self.service)) or 'none'}"
        except OscarProviderError as error:
            return f"Its log cannot be read: {error}"

    def _body(self) -> bytes:
        if isinstance(self.payload, Mapping):
            return json.dumps(self.payload).encode()
        return self.payload.encode()

    def _decoded(self, answer: httpx.Response) -> object:
        status, content = answer.status_code, answer.content
        if answer.is_redirect:
            raise PermanentError(
                f"service {self.service!r} redirects {self.method} {self.path!r} to "
                f"{quoted(answer.headers.get('location', ''))} ({status}), which is not followed; give the path that "
                "answers"
            )
        text = content[: _ANSWER_LIMIT + 1].decode("utf-8", "replace").replace("\0", "")
        if status >= 400:
            kind = TransientError if status in (408, 425, 429, 500) else PermanentError
            raise kind(f"service {self.service!r} answered {status} to {self.method} {self.path!r}: {quoted(text)}")
        if len(content) > _ANSWER_LIMIT:
            raise PermanentError(
                f"service {self.service!r} answered {len(content)} bytes, XCom takes {_ANSWER_LIMIT}; let it write an "
                "object instead"
            )
        if self.answer == "text":
            return text
        if status == _NO_CONTENT:
            return None
        try:
            return parse_json(text)
        except ValueError as error:
            raise PermanentError(f"service {self.service!r} did not answer JSON but {quoted(text)}") from error
