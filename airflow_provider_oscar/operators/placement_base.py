# SPDX-License-Identifier: Apache-2.0
"""What the operators that place work have in common: policy, targets, and whether they learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar.base_arguments import OperatorArguments, is_unresolved
from airflow_provider_oscar.core.checks import check_value, is_template
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import nearest
from airflow_provider_oscar.jobs.backend import require_backend
from airflow_provider_oscar.operators.choosing import required
from airflow_provider_oscar.operators.placement_store import PLACEMENT_RUNS
from airflow_provider_oscar.placement.policies import PlacementPolicy, check_policy
from airflow_provider_oscar.placement.targets import AUTOMATIC, PlacementTarget, by_name, get_target


class PlacementOperator(BaseOperator):
    """Base of the operators that place work.

    :param policy: decides; see :mod:`airflow_provider_oscar.placement.policies`.
    :param targets: what there is to choose from.
    :param force: name of the target a user insists on; empty or ``auto`` leaves it to the policy.
    :param requires: capabilities the target must have.
    :param learn: give the policy what past jobs took, and record these; by default for policies that predict.
    :raises DefinitionError: in the DAG file, if two targets have the same name or there is none.
    """

    #: Whether it is of a group that :func:`~.placed.placed` made, whose tasks do the same work.
    of_group = False

    @property
    def work(self) -> str:
        """What its jobs do, for policies that learn how long that takes: of each task or group it is another."""
        return f"{self.dag_id}/{self.task_id.rpartition('.')[0] if self.of_group else self.task_id}"

    def __init__(
        self,
        *,
        policy: PlacementPolicy,
        targets: Sequence[PlacementTarget],
        force: str,
        requires: Iterable[str],
        learn: bool | None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        self.learn = bool(getattr(policy, "learns", False)) if learn is None else learn
        if self.learn:
            # Named so that Airflow keeps the asset, and with it what is known.
            kwargs["inlets"] = [*(kwargs.get("inlets") or ()), PLACEMENT_RUNS]
        super().__init__(**kwargs)
        check_policy(policy, targets)
        for target in targets:
            require_backend(target.kind, f"kind of placement target {target.name!r}")
        self.policy = policy
        self.targets = tuple(targets)
        self.force = force
        self.requires = requires if is_unresolved(requires) else required(requires)
        if isinstance(force, str) and not is_template(force) and force.strip().lower() not in AUTOMATIC:
            get_target(force.strip(), by_name(targets))
        known = {word for target in targets for word in target.capabilities}
        for word in self.requires if isinstance(self.requires, list) else ():
            check_value(word, str, f"one of the words that task {self.task_id!r} requires")
            if not is_template(word) and word not in known:
                raise DefinitionError(
                    f"task {self.task_id!r} requires {quoted(word)}, which no target is capable of"
                    f"{nearest(word, known) or '; give it to the capabilities of one'}"
                )
