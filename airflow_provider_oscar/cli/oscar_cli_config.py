# SPDX-License-Identifier: Apache-2.0
"""Connections of the clusters in oscar-cli's configuration (``pkg/config/config.go`` of oscar-cli 1.12)."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from airflow_provider_oscar.core.coercion import coerced
from airflow_provider_oscar.core.shapes import parse_json


def cluster_connection(cluster: Mapping[str, object]) -> dict[str, object]:
    """Return the connection for one cluster of oscar-cli's configuration, for ``airflow connections import``."""
    return {
        "conn_type": "oscar",
        "host": _text(cluster, "endpoint"),
        "login": _text(cluster, "auth_user") or None,
        "password": _text(cluster, "auth_password") or None,
        "extra": cluster_extra(cluster),
    }


def cluster_extra(cluster: Mapping[str, object]) -> dict[str, object]:
    """Return the extra fields of a connection for one cluster of oscar-cli's configuration."""
    extra: dict[str, object] = {}
    if cluster.get("ssl_verify") is False:
        extra["verify"] = False
    refresh, account = _text(cluster, "oidc_refresh_token"), _text(cluster, "oidc_account_name")
    if refresh:
        claims = _claims(refresh)
        issuer = str(claims.get("iss") or "").rstrip("/")
        extra |= {
            "auth_type": "oidc",
            "refresh_token": refresh,
            "token_endpoint": f"{issuer}/protocol/openid-connect/token" if issuer else "",
            "client_id": claims.get("azp") or "",
            "scopes": claims.get("scope") or "",
        }
    elif account:
        extra |= {"auth_type": "oidc", "oidc_agent_account": account}
    return extra


def _text(cluster: Mapping[str, object], name: str) -> str:
    """Return a text as oscar-cli reads it: a password of digits alone is a number in YAML."""
    return coerced("" if cluster.get(name) is None else cluster[name], str, f"clusters.{name}")


def _claims(token: str) -> Mapping[str, object]:
    """Return what a JWT says, unverified; nothing if it is of another form."""
    try:
        payload = token.split(".")[1]
        found = parse_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return found if isinstance(found, dict) else {}
    except (IndexError, ValueError):
        return {}
