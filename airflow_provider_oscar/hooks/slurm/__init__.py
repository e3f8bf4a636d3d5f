# SPDX-License-Identifier: Apache-2.0
"""SLURM itself, asked through its REST API."""

from __future__ import annotations

from airflow_provider_oscar.hooks.slurm.hook import SlurmHook

__all__ = ["SlurmHook"]
