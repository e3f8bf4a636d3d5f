# SPDX-License-Identifier: Apache-2.0
"""From an Airflow connection to a client of Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_oscar.core.bounded_yaml import load_yaml
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.hooks.interlink.bounds import BoundedPools

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from kubernetes.client import CoreV1Api


def core_api(connection: Connection, display_name: str) -> CoreV1Api:
    """Return a client for what the connection describes.

    :raises DefinitionError: if its kube config cannot be used.
    """
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    configuration = client.Configuration()
    given = extra_field(connection, "kube_config_secret") or extra_field(connection, "kube_config")
    path = extra_field(connection, "kube_config_path")
    context = extra_field(connection, "cluster_context") or None
    try:
        if _flag(extra_field(connection, "in_cluster")):
            config.load_incluster_config(client_configuration=configuration)
        elif given:
            config.load_kube_config_from_dict(
                _kube_config(given, display_name),
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        else:
            config.load_kube_config(
                config_file=path or None, context=context, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DefinitionError(
            f"{display_name} has no usable kube config ({type(error).__name__}: {quoted(error)}); "
            "set one of the extra fields in_cluster, kube_config_path or kube_config_secret (kube_config)"
        ) from error
    verify = extra_field(connection, "verify_ssl")
    if (verify is not None and not _flag(verify)) or _flag(extra_field(connection, "disable_verify_ssl")):
        configuration.verify_ssl = False
    # A retry of ours starts from the beginning; the client's own would hide a dead server for minutes.
    configuration.retries = 1
    api = client.ApiClient(configuration)
    from airflow_provider_oscar.hooks.http.paced_pools import pace_pools

    pace_pools(api.rest_client.pool_manager)
    api.rest_client.pool_manager = BoundedPools(api.rest_client.pool_manager)
    return client.CoreV1Api(api)


def _kube_config(given: object, display_name: str) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = load_yaml(given)
        except ValueError:
            # The text holds keys, so it is not shown.
            raise DefinitionError(
                f"{display_name}: the kube config in its extra is neither JSON nor YAML; "
                "paste the file as it is, line ends included, or set kube_config_path"
            ) from None
    if not isinstance(given, dict):
        raise DefinitionError(
            f"{display_name}: the kube config in its extra is not a valid kube config; expected a mapping with "
            "'clusters'"
        )
    _mask_credentials(given)
    return given


def _mask_credentials(kube_config: dict[str, Any]) -> None:
    """Hide each credential in task logs; Airflow masks a kube config given as text only as a whole."""
    for entry in kube_config.get("users") or ():
        user = entry.get("user") if isinstance(entry, dict) else None
        for name in ("token", "password", "client-key-data"):
            if isinstance(user, dict) and user.get(name):
                mask_secret(str(user[name]))


def extra_field(connection: Connection, name: str) -> Any:
    """Return a text of a connection's extra under either of the names Airflow gives it, or None."""
    extra = connection.extra_dejson
    return extra.get(name, extra.get(f"extra__kubernetes__{name}"))


def _flag(value: object) -> bool:
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value)
