# SPDX-License-Identifier: Apache-2.0
"""Pods on a virtual node, which interLink offloads to SLURM."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_oscar.jobs.pods import PodBackend


class InterLinkBackend(PodBackend):
    """The pods of one namespace on one virtual node; parameters as of :class:`~.pods.PodBackend`."""

    name: ClassVar[str] = "interlink"


BACKEND = InterLinkBackend
