# SPDX-License-Identifier: Apache-2.0
"""Keys under which tasks ask the hand-over service for something, and find the answers."""

from __future__ import annotations

#: A replay of objects that the place had, and its answer.
REQUEST = "request:replay:"
ANSWER = "answer:replay:"
#: Objects to be told of, and how many of them were not known.
BACKFILL_REQUEST = "request:backfill:"
BACKFILL_ANSWER = "answer:backfill:"
#: The memory of a watcher whose filter was another one, and what became of the request.
MEMORY_REQUEST = "request:memory:"
MEMORY_ANSWER = "answer:memory:"
#: Objects of one request for a backfill.
BACKFILL_PAGE = 200
