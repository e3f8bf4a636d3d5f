# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the operators' tests."""

from __future__ import annotations

from tests.support.operators import cluster, impatient, no_delays, oscar, supervisor

__all__ = ["cluster", "no_delays", "impatient", "oscar", "supervisor"]
