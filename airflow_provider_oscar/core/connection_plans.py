# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection that is to be made, in the form that ``airflow connections import`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConnectionPlan:
    """One connection.

    :param conn_id: its id.
    :param conn_type: its type.
    :param host: URL or host.
    :param login: user or access key.
    :param password: secret.
    :param extra: further fields; may hold secrets.
    """

    conn_id: str
    conn_type: str
    host: str = ""
    login: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, object]:
        """Return the fields as ``airflow connections import`` reads them, secrets included."""
        return {
            "conn_type": self.conn_type,
            "host": self.host or None,
            "login": self.login or None,
            "password": self.password or None,
            "extra": json.dumps(self.extra) if self.extra else None,
        }
