# SPDX-License-Identifier: Apache-2.0
"""What a refusal of the Kubernetes API means for the caller; its client is imported only where it is in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.hooks.http.errors import error_class
from airflow_provider_oscar.hooks.http.headers import UnsendableHeaderError

_CALL = re.compile(r"(create|delete|list|patch|read|replace)_(?:namespaced_)?([a-z]+)(?:_(log|status))?")
_NOT_ACCEPTED = "it does not accept what was sent; correct the arguments of the task"
_REMEDIES = {
    401: "not authenticated; renew the kube config of the connection",
    403: "forbidden; grant the account what deploy/rights/kubernetes.yaml has",
    404: "not there; check the namespace and names",
    405: "not there; check that the address is that of a Kubernetes API server",
    **dict.fromkeys((400, 406, 413, 415, 422), _NOT_ACCEPTED),
}


def needed_right(call: object) -> str:
    """Return the right that a call of the Kubernetes client needs, in the words of a Role; empty for other calls.

    :param call: the client's method, such as ``read_namespaced_pod_log``.
    """
    found = _CALL.fullmatch(getattr(call, "__name__", ""))
    if found is None:
        return ""
    verb, resource, part = found.groups()
    return f"{'get' if verb == 'read' else verb} on {resource}s{f'/{part}' if part else ''}"


def kubernetes_refusal(
    status: int, body: object, *, action: str, display_name: str, worked_before: bool = False, call: object = None
) -> OscarProviderError:
    """Return the error for an HTTP status of the API server; total over all statuses.

    A login that is refused is worth a retry: tokens are renewed, and webhooks that check them restart. So is a right
    that was there a moment ago.

    :param status: HTTP status, 0 where none came.
    :param body: the API's ``Status`` object as text, or anything else.
    :param action: what was attempted.
    :param display_name: words that name the connection.
    :param worked_before: the same account was answered before.
    :param call: the client's method that was called.
    """
    message = _message(body)
    seen = f"{display_name}: Kubernetes answered {status} to {action}" + (f" ({quoted(message)})" if message else "")
    if status == 0:
        return TransientError(
            f"{display_name}: no answer from Kubernetes to {action}; check that the API server is reachable"
        )
    if status == 403 and "exceeded quota" in message:
        return TransientError(f"{seen}: the namespace's quota is used up")
    if status == 403:
        right = needed_right(call)
        granted = "kubernetes-nodes" if right.endswith("nodes") else "kubernetes"
        named = f"forbidden; grant the account {right} (deploy/rights/{granted}.yaml has it)"
        words = f"{seen}: {named if right else _REMEDIES[status]}"
        return TransientError(words) if worked_before else AccessError(words)
    if status == 401:
        return TransientError(f"{seen}: {_REMEDIES[status]}")
    if status in _REMEDIES:
        return DefinitionError(f"{seen}: {_REMEDIES[status]}")
    if status == 409:
        return TransientError(f"{seen}: something else changed it at the same moment")
    if status in (408, 423, 425, 429):
        return TransientError(f"{seen}: it asks to come back later")
    if 300 <= status < 400:
        words = f"{seen}: it redirects; put the API server's own address into the kube config"
        return TransientError(words) if error_class(status) is TransientError else DefinitionError(words)
    if status in (501, 505) or 400 <= status < 500:
        return PermanentError(f"{seen}: refused")
    return TransientError(f"{seen}: the server failed")


def is_own(body: object) -> bool:
    """Whether the body of a refusal is one of Kubernetes, which answers with its ``Status``.

    A 404 of a proxy says nothing of what was asked for.

    :param body: bytes or text.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = parse_json(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("kind") == "Status"


def _message(body: object) -> str:
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = parse_json(text)
    except ValueError:
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else ""


class RefusedError(Exception):
    """An HTTP status that is not a success, before it is known what it means for the caller.

    :param status: of HTTP.
    :param body: of the answer.
    """

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@contextmanager
def client_errors(display_name: str, action: str) -> Iterator[None]:
    """Turn the client's exceptions into ours.

    :param display_name: words that name the connection.
    :param action: what was attempted.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError, SSLError

    try:
        yield
    except UnsendableHeaderError as error:
        raise DefinitionError(f"{display_name}: cannot {action}: {error}") from error
    except ApiException as error:
        raise RefusedError(int(error.status or 0), error.body) from error
    except (HTTPError, OSError) as error:
        cause = getattr(error, "reason", None) or error
        if isinstance(cause, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(cause):
            raise DefinitionError(
                f"{display_name}: the certificate of the Kubernetes API is not trusted; "
                "put its CA into the kube config (certificate-authority-data)"
            ) from error
        raise TransientError(
            f"{display_name}: cannot reach Kubernetes to {action} ({type(cause).__name__}: {quoted(cause)})"
        ) from error
