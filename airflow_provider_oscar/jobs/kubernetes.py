# SPDX-License-Identifier: Apache-2.0
"""Pods on ordinary nodes of Kubernetes: the same cluster without interLink, or any other."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_oscar.jobs.pods import PodBackend


class KubernetesBackend(PodBackend):
    """The pods of one namespace, on whatever node the scheduler finds; parameters as of :class:`~.pods.PodBackend`."""

    name: ClassVar[str] = "kubernetes"
    operator: ClassVar[str] = "airflow_provider_oscar.operators.kubernetes.KubernetesJobOperator"


BACKEND = KubernetesBackend
