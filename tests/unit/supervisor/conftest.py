# SPDX-License-Identifier: Apache-2.0
"""Fixtures that run the supervisor as a container does."""

from __future__ import annotations

from tests.support.supervised import other_store, store, supervise

__all__ = ["other_store", "store", "supervise"]
