# SPDX-License-Identifier: Apache-2.0
"""The timetable of DAGs that are run by :mod:`airflow_provider_oscar.ingest.handover`; registered by the plugin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.timetables.simple import AssetTriggeredTimetable

from airflow_provider_oscar._airflow import read_condition, unfulfillable_condition
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.ingest.policies import Policy, from_json, to_json

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from airflow.serialization.definitions.assets import SerializedAssetBase

_DESCRIPTIONS = {
    "each": "A run per new object",
    "batch": "A run per batch of new objects",
    "group": "A run per complete group of objects",
}


class NewObjectsTimetable(AssetTriggeredTimetable):
    """Ties a DAG to the assets of watched places, and leaves the making of runs to the hand-over service.

    Airflow's own scheduler would make one run of all events that come close together, with the first of them alone.
    Therefore the condition of this timetable, "all of the assets, and one of none", never holds for it; the assets are
    in it so that their watchers run as long as the DAG is not paused, and so that the UI shows them.

    :param assets: assets of the watched places; or the condition, when Airflow reads the timetable back.
    :param policy: which objects share a run.
    :param history: seconds before the DAG was first seen, whose objects it gets as well.
    :param min_interval: seconds between two runs at least; 0 for no limit.
    """

    def __init__(
        self,
        assets: Sequence[Asset] | SerializedAssetBase,
        *,
        policy: Policy,
        history: float = 86_400.0,
        min_interval: float = 0.0,
    ) -> None:
        for name, seconds in (("history", history), ("min_interval", min_interval)):
            if not 0 <= seconds < math.inf:
                raise DefinitionError(f"{name} is {seconds}; expected 0 seconds or more")
        if isinstance(assets, Sequence):
            super().__init__(unfulfillable_condition(assets))
        else:
            super().__init__(assets)
        self.policy = policy
        self.history = history
        self.min_interval = min_interval
        self.description = _DESCRIPTIONS[policy.kind]

    @property
    def summary(self) -> str:
        """What the UI shows as the schedule."""
        return f"New objects: {self.policy.kind}"

    def serialize(self) -> dict[str, object]:
        """Return what Airflow stores."""
        return {
            **super().serialize(),
            "policy": to_json(self.policy),
            "history": self.history,
            "min_interval": self.min_interval,
        }

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> NewObjectsTimetable:
        """Read :meth:`serialize`."""
        return cls(
            read_condition(data["asset_condition"]),
            policy=from_json(data["policy"]),
            history=float(data["history"]),
            min_interval=float(data["min_interval"]),
        )


#: How Airflow's database names the timetable.
TIMETABLE = f"{NewObjectsTimetable.__module__}.{NewObjectsTimetable.__qualname__}"
