# SPDX-License-Identifier: Apache-2.0
"""Property tests here judge results and not speed: a busy machine must not fail them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
