# SPDX-License-Identifier: Apache-2.0
"""Wait until a virtual node of interLink takes work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import SensorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.nodes import unmet_need
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.jobs.status import JsonObject
from airflow_provider_oscar.triggers.nodes import VirtualNodeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class InterLinkNodeSensor(BaseSensorOperator):
    """Waits until a virtual node is ready and offers what is asked for; returns the node as a dictionary.

    ``poke_interval`` and ``timeout`` are those of every sensor, in seconds. What a node offers is what its plugin says
    of the whole site; a job may still wait in SLURM's queue.

    :param node: name of the virtual node (templated); empty for any.
    :param accelerators: least number of each kind of accelerator, by resource name such as ``nvidia.com/gpu``.
    :param interlink_conn_id: connection of type ``interlink`` or ``kubernetes`` (templated).
    :param deferrable: wait in the triggerer (default) instead of on a worker.
    """

    template_fields: Sequence[str] = ("node", "interlink_conn_id")
    ui_color = "#e4dcf5"

    @checks_arguments
    def __init__(
        self,
        *,
        node: str = "",
        accelerators: Mapping[str, int] | None = None,
        interlink_conn_id: str = InterLinkHook.default_conn_name,
        deferrable: bool = True,
        **kwargs: Unpack[SensorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.node = node
        self.accelerators = dict(accelerators or {})
        self.interlink_conn_id = interlink_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> object:
        """Look once, then wait."""
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            found = self._look()
            if found is not None:
                return found
        self.defer(
            trigger=VirtualNodeTrigger(
                conn_id=self.interlink_conn_id,
                node=self.node,
                accelerators=self.accelerators,
                deadline=time.time() + self.timeout,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with airflow_errors():
            found = self._look()
        return PokeReturnValue(is_done=found is not None, xcom_value=found)

    def execute_complete(self, context: Context, event: JsonObject | None = None) -> object:
        """Return the node, or fail with the reason."""
        event = event or {}
        with airflow_errors():
            if event.get("status") == "ready":
                return event.get("node")
            wanted = f"virtual node {self.node!r}" if self.node else "a virtual node"
            raise TransientError(
                f"connection {self.interlink_conn_id!r}: {wanted} did not become ready within {self.timeout:.0f} s "
                f"({event.get('reason') or event.get('message') or 'no reason given'})"
            )

    def _look(self) -> JsonObject | None:
        check_rendered(self)
        nodes = InterLinkHook(self.interlink_conn_id).nodes()
        found, reason = unmet_need(nodes, node=self.node, accelerators=self.accelerators)
        if found is None:
            self.log.info("%s", reason)
            return None
        return found.to_dict()
