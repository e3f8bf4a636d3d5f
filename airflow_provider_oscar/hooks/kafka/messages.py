# SPDX-License-Identifier: Apache-2.0
"""What a topic holds, as a value that needs no client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """One message.

    :param partition: of the topic.
    :param offset: in the partition.
    :param value: its bytes.
    :param assignment: which assignment of the partition to this consumer it was read under; later ones are greater.
    """

    partition: int
    offset: int
    value: bytes
    assignment: int = 0
