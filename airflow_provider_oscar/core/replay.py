# SPDX-License-Identifier: Apache-2.0
"""Keys under which a task asks the hand-over service for a replay, and finds the answer."""

from __future__ import annotations

REQUEST = "request:replay:"
ANSWER = "answer:replay:"
