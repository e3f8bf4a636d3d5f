# SPDX-License-Identifier: Apache-2.0
"""What commands about OSCAR share: the hook, and that there is a service, or what is said if there is none."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.http.flows import Flow
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

T = TypeVar("T")

#: Types of connections that never lead to OSCAR; others, such as ``http``, may.
_OTHERS = frozenset({"oscar_s3", "aws", "dcache", "interlink", "kubernetes"})


def oscar_hook(options: argparse.Namespace) -> OscarHook:
    """Return the hook of the connection that ``--conn-id`` names.

    :raises DefinitionError: if that is one of another system.
    """
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    conn_type = str(hook.connection.conn_type)
    if conn_type in _OTHERS:
        raise DefinitionError(f"connection {options.conn_id!r} is of type {conn_type!r}; expected one of type 'oscar'")
    return hook


def of_service(hook: OscarHook, service: str, flow: Flow[T]) -> T:
    """Ask about a service; if that fails for want of the service, the error says so and no more."""
    try:
        return hook.run(flow)
    except OscarProviderError:
        if hook.run(hook.get_service(service)) is None:
            raise _no_service(service) from None
        raise


def existing_service(hook: OscarHook, service: str) -> dict[str, object]:
    """Return a service as OSCAR holds it.

    :raises DefinitionError: if there is none.
    """
    found = hook.run(hook.get_service(service))
    if found is None:
        raise _no_service(service)
    return found


def _no_service(service: str) -> DefinitionError:
    return DefinitionError(f"there is no service {service!r}; `airflow oscar services list` shows them")
