# SPDX-License-Identifier: Apache-2.0
"""How many small objects share one job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, distinct

#: Objects of one job at most: each has two addresses in the job's Secret, which holds 1 MiB.
MOST_OBJECTS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadBatch:
    """Many objects in one SLURM job: whatever comes first ends a batch.

    :param max_objects: objects of one job, 1 to 250.
    :param max_bytes: bytes of them together, or None; the object that reaches it is the last.
    :param max_wait: how long the first object of a batch waits for others, in seconds or as a timedelta.
    :param parallel: objects at a time within the job; 0 for as many as the job has processors. More is right for
        commands that wait, for a store or a service.
    :param persistent_worker: start the command ``parallel`` times, not once for each object: it reads of one object
        after another from its standard input, so that what it loads it loads once. A line is a JSON object with the
        variables that a command started for that object would find; the answer is a line with the exit code, written to
        the file that ``SUPERVISOR_ANSWERS`` names.
    :raises DefinitionError: for a number out of its range.
    """

    max_objects: int = 64
    max_bytes: int | None = None
    max_wait: timedelta | float = 60.0
    parallel: int = 0
    persistent_worker: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_objects <= MOST_OBJECTS:
            raise DefinitionError(f"OffloadBatch.max_objects is {self.max_objects}; expected 1 to {MOST_OBJECTS}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise DefinitionError(f"OffloadBatch.max_bytes is {self.max_bytes}; expected a positive number, or None")
        if self.parallel < 0:
            raise DefinitionError(f"OffloadBatch.parallel is {self.parallel}; expected 0 or more")

    def split(self, objects: Iterable[ObjectEvent | Mapping[str, object]]) -> list[list[dict[str, object]]]:
        """Return objects in batches, in their order, for ``InterLinkBatchOperator.partial(…).expand(objects=…)``.

        :param objects: for example all of a run, or what a sensor returned; each counts once.
        """
        batches: list[list[dict[str, object]]] = []
        size = 0
        for event in distinct(ObjectEvent.from_dict(each) if isinstance(each, Mapping) else each for each in objects):
            full = batches and (
                len(batches[-1]) >= self.max_objects or (self.max_bytes is not None and size >= self.max_bytes)
            )
            if not batches or full:
                batches.append([])
                size = 0
            batches[-1].append(event.to_dict())
            size += event.size or 0
        return batches
