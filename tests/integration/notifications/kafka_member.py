# SPDX-License-Identifier: Apache-2.0
"""One triggerer's part of a Kafka watcher, to be killed: what is durable is what it has written to its file.

``python -m tests.integration.notifications.kafka_member TOPIC FILE``, the connection in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from airflow_provider_oscar.core.notifications import Notification
from airflow_provider_oscar.core.objects import Reason
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel


def _keys(notifications: list[Notification]) -> dict[str, Reason]:
    return {each.key: Reason.CREATED for each in notifications}


async def follow(topic: str, path: Path) -> None:
    """Write the key of each message to the file, and only then say that it is stored."""
    channel = KafkaChannel(topic, conn_id="kafka", group="members", keys=_keys)
    with path.open("a") as file:
        async for delivery in channel.listen():
            if delivery is None:
                continue
            await asyncio.sleep(0.005)
            file.write("".join(f"{key}\n" for key in delivery.keys))
            file.flush()
            os.fsync(file.fileno())
            assert delivery.ack is not None
            delivery.ack(True)


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1], Path(sys.argv[2])))
