# SPDX-License-Identifier: Apache-2.0
"""Connections of the clusters in oscar-cli's configuration (``pkg/config/config.go`` of oscar-cli 1.12)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping


def cluster_connection(cluster: Mapping[str, object]) -> dict[str, object]:
    """Return the connection for one cluster of oscar-cli's configuration, for ``airflow connections import``."""
    return {
        "conn_type": "oscar",
        "host": str(cluster.get("endpoint") or ""),
        "login": str(cluster.get("auth_user") or "") or None,
        "password": str(cluster.get("auth_password") or "") or None,
        "extra": cluster_extra(cluster),
    }


def cluster_extra(cluster: Mapping[str, object]) -> dict[str, object]:
    """Return the extra fields of a connection for one cluster of oscar-cli's configuration."""
    extra: dict[str, object] = {}
    if cluster.get("ssl_verify") is False:
        extra["verify"] = False
    refresh, account = str(cluster.get("oidc_refresh_token") or ""), str(cluster.get("oidc_account_name") or "")
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


def _claims(token: str) -> Mapping[str, object]:
    """Return what a JWT says, unverified; nothing if it is of another form."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return found if isinstance(found, dict) else {}
    except (IndexError, ValueError):
        return {}
