# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the operators' tests serve the decorators too."""

from __future__ import annotations

from tests.support.functions import runs, store
from tests.support.operators import cluster, supervisor

__all__ = ["cluster", "runs", "store", "supervisor"]
