# SPDX-License-Identifier: Apache-2.0
"""Process objects again from within a DAG."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import AssetStateStoreAccessor, airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.replay import ANSWER, REQUEST, Selection
from airflow_provider_oscar.core.times import read_iso
from airflow_provider_oscar.operators.service_requests import ask_service

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReplayObjectsOperator(BaseOperator):
    """Makes the runs of objects again that a watched place had: those of a time, a prefix, or what failed.

    The same as ``airflow oscar objects replay``. The work is done by the hand-over service in the triggerer; runs that
    ended are cleared, runs that are missing are made, runs that wait or run are left alone.

    :param asset: name of the asset, ``incoming.asset.name`` (templated).
    :param since: ISO 8601 time; objects modified at or after it (templated).
    :param until: ISO 8601 time; objects modified before it (templated).
    :param prefix: start of the key (templated).
    :param failed_only: only objects of failed runs.
    :param dag_ids: these DAGs; all that are scheduled by the asset by default.
    :param dry_run_only: only count.
    :param answer_timeout: seconds or a timedelta to wait for the service.
    :raises DefinitionError: if there is no such asset, or too much is selected.
    :raises TransientError: if the service does not answer; the task is tried again.
    """

    template_fields: Sequence[str] = ("asset", "since", "until", "prefix", "dag_ids")

    @checks_arguments
    def __init__(
        self,
        *,
        asset: str,
        since: str | None = None,
        until: str | None = None,
        prefix: str = "",
        failed_only: bool = False,
        dag_ids: Sequence[str] = (),
        dry_run_only: bool = False,
        answer_timeout: timedelta | float = 300.0,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.asset = asset
        self.since = since
        self.until = until
        self.prefix = prefix
        self.failed_only = failed_only
        self.dag_ids = dag_ids
        self.dry_run_only = dry_run_only
        self.answer_timeout = seconds(answer_timeout)
        self._sleep: Callable[[float], None] = time.sleep

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask, wait for the answer and return its counts: objects, cleared, created, left."""
        with airflow_errors():
            check_rendered(self)
            return self._ask(AssetStateStoreAccessor(name=self.asset))

    def _time(self, name: str) -> datetime | None:
        text = getattr(self, name)
        try:
            return read_iso(text) if text else None
        except ValueError as error:
            raise DefinitionError(
                f"{name} of the replay of {self.asset!r} is {quoted(text)}; expected an ISO 8601 time such as "
                "2026-11-28T06:00:00Z"
            ) from error

    def _ask(self, store: Any) -> dict[str, Any]:
        selection = Selection(
            asset=self.asset,
            since=self._time("since"),
            until=self._time("until"),
            prefix=self.prefix,
            failed_only=self.failed_only,
            dag_ids=tuple(self.dag_ids),
        )
        request = {**selection.to_json(), "dry_run": self.dry_run_only}
        answer = ask_service(
            store,
            request,
            keys=(REQUEST, ANSWER),
            display_name=f"replay of {self.asset!r}",
            timeout=self.answer_timeout,
            pause=2.0,
            sleep=self._sleep,
        )
        self.log.info("%s", answer)
        return dict(answer)
