# SPDX-License-Identifier: Apache-2.0
"""Pods on a virtual node, which interLink offloads to SLURM."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar

from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.jobs.pods import PodBackend
from airflow_provider_oscar.placement.targets import TargetObservation

log = logging.getLogger(__name__)


class InterLinkBackend(PodBackend):
    """The pods of one namespace on one virtual node; parameters as of :class:`~.pods.PodBackend`.

    :param partition: SLURM partition of the jobs, whose queue a placement looks at; empty for the whole cluster.
    """

    name: ClassVar[str] = "interlink"
    operator: ClassVar[str] = "airflow_provider_oscar.operators.interlink.InterLinkPodOperator"

    def __init__(self, *, conn_id: str, namespace: str = "", node: str = "", partition: str = "") -> None:
        super().__init__(conn_id=conn_id, namespace=namespace, node=node)
        self.partition = partition

    def observe(self) -> TargetObservation:
        """Look at node and pods, and at SLURM's queue where the connection says how (extra ``slurm_conn_id``)."""
        seen = super().observe()
        try:
            slurm = self.hook.slurm if seen.up else None
            queue = None if slurm is None else slurm.queue(self.partition)
        except OscarProviderError as error:
            # It is an aid: the node takes work without it.
            log.info("The queue of SLURM behind %s is not known: %s", self.display_name, error)
            return seen
        return seen if queue is None else replace(seen, queue_length=queue.waiting, start_in=queue.start_in)


BACKEND = InterLinkBackend
