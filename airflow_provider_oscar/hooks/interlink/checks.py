# SPDX-License-Identifier: Apache-2.0
"""What ``airflow oscar check`` looks at in Kubernetes and interLink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.checks import Check, clock_difference
from airflow_provider_oscar.hooks.interlink.errors import kubernetes_refusal
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: What a Kubernetes account needs for jobs: verb and resource.
_KUBERNETES_RIGHTS = (
    ("create", "pods", ""),
    ("list", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", ""),
    ("get", "pods", "log"),
    ("create", "secrets", ""),
    ("delete", "secrets", ""),
)


def kubernetes_checks(connection: Connection) -> Iterator[Check]:
    """Return what a connection to Kubernetes and interLink is used for.

    :param connection: of type ``interlink`` or ``kubernetes``.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    hook = InterLinkHook(connection.conn_id)
    seen: dict[str, str] = {}

    @contextmanager
    def asked(action: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise kubernetes_refusal(
                int(error.status or 0), error.body, action=action, display_name=hook.display_name
            ) from error
        except HTTPError as error:
            raise kubernetes_refusal(0, "", action=action, display_name=hook.display_name) from error

    def version() -> str:
        from kubernetes.client import VersionApi

        with asked("the question for its version"):
            data, _, headers = VersionApi(hook.core.api_client).get_code_with_http_info()
        seen["date"] = str(headers.get("Date", ""))
        return f"Kubernetes {data.git_version}, namespace {hook.namespace!r}"

    def allowed(verb: str, resource: str, subresource: str) -> str:
        from kubernetes.client import (
            AuthorizationV1Api,
            V1ResourceAttributes,
            V1SelfSubjectAccessReview,
            V1SelfSubjectAccessReviewSpec,
        )

        wanted = V1ResourceAttributes(
            namespace=hook.namespace, verb=verb, resource=resource, subresource=subresource or None
        )
        review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
        with asked("the question for rights"):
            answer = AuthorizationV1Api(hook.core.api_client).create_self_subject_access_review(review)
        if not answer.status.allowed:
            raise DefinitionError(
                f"the account may not {verb} {'/'.join(filter(None, (resource, subresource)))} in namespace "
                f"{hook.namespace!r}; deploy/rights has the roles"
            )
        return "allowed"

    def nodes() -> str:
        # First the right, since the list itself is asked for again and again.
        allowed("list", "nodes", "")
        found = hook.nodes()
        if not found:
            raise DefinitionError("no virtual node of interLink is there")
        return ", ".join(node.name for node in found)

    yield Check("latency and version", version, gate=True)
    yield Check("clock difference", lambda: clock_difference(seen.get("date", ""), datetime.now(UTC)), needed=False)
    for verb, resource, subresource in _KUBERNETES_RIGHTS:
        name = f"{resource}/{subresource}" if subresource else resource
        yield Check(f"{verb} {name}", partial(allowed, verb, resource, subresource))
    yield Check("virtual nodes", nodes, needed=False)
