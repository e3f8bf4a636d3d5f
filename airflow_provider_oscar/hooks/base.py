# SPDX-License-Identifier: Apache-2.0
"""What the hooks of outside systems have in common: one connection, and its name in messages."""

from __future__ import annotations

from airflow.sdk import BaseHook


class NamedByConnection(BaseHook):
    """A hook that uses the connection of the attribute ``conn_name_attr`` names."""

    conn_name_attr: str

    @property
    def display_name(self) -> str:
        """The connection, as messages and logs name it."""
        return f"connection {getattr(self, self.conn_name_attr)!r}"
