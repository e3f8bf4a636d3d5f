# SPDX-License-Identifier: Apache-2.0
"""The trigger for jobs that OSCAR starts by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from airflow_provider_oscar.core.checks import seconds
from airflow_provider_oscar.core.filters import ObjectFilter
from airflow_provider_oscar.triggers.objects import NewObjectTrigger, StartArgument
from airflow_provider_oscar.watch.arguments.service_jobs import ServiceJobsArguments


class OscarServiceJobsTrigger(NewObjectTrigger[ServiceJobsArguments]):
    """Reports every job of a service that has ended, of those that OSCAR started by itself.

    A file comes to the service's own input, OSCAR runs it, and the DAG that is scheduled by the asset continues::

        done = Asset("cowsay done", watchers=[AssetWatcher(
            name="jobs", trigger=OscarServiceJobsTrigger(asset_name="cowsay done", service="cowsay"))])

    ``NewObjects("oscar://oscar_default/cowsay")`` says the same, with one run per job. The event is an ``ObjectEvent``
    whose ``container`` is the service, ``key`` the name of the job and ``etag`` how it ended. Each job is reported
    once, also after restarts; what was reported is remembered in the state store of the asset. Jobs that this
    provider submits are left out, since their own task waits for them; OSCAR before 4.1 gives all jobs names of its
    own, so there they are reported too. OSCAR says ``Succeeded`` whatever the script's exit code.

    :param asset_name: name of the asset the watcher belongs to; its state store holds the watcher's memory.
    :param service: name of the OSCAR service.
    :param conn_id: connection of type ``oscar``.
    :param states: how the job must have ended: ``"succeeded"`` (default), ``"failed"``, or both.
    :param submitted: report jobs as well that were submitted under a chosen name.
    :param members: clusters of a federated service, which may hand its jobs to them, as of ``OscarJobOperator``:
        cluster id to connection of type ``oscar``. A cluster that is not in it needs a connection of its own name.
        The event of a job that was handed on has the connection and the service where it is.
    :param filter: conditions on the name of the job as one value; instead of the five that follow.
    :param suffix: end of the name.
    :param glob: shell pattern on the name.
    :param regex: regular expression searched for in the name.
    :param min_size: must be 0: jobs have no size.
    :param ignore: shell patterns of names that are never reported.
    :param start: what a watcher without a memory does: ``"now"`` reports what comes after its first listing, ``"all"``
        also what has ended already, and a time (a datetime, or ISO 8601) what ended since then.
    :param poll_interval: seconds (or a timedelta) between listings; OSCAR looks at every job for each.
    :param algorithm: what is remembered, as for the other watchers.
    :param sentinel: must be empty: jobs have none.
    :raises DefinitionError: in the DAG file, for an argument that cannot be used.
    """

    def __init__(
        self,
        *,
        asset_name: str,
        service: str,
        conn_id: str = "oscar_default",
        states: Sequence[str] = ("succeeded",),
        submitted: bool = False,
        members: Mapping[str, str] | None = None,
        filter: ObjectFilter | Mapping[str, object] | None = None,
        suffix: str = "",
        glob: str | None = None,
        regex: str | None = None,
        min_size: int = 0,
        ignore: Sequence[str] | None = None,
        start: StartArgument = "now",
        poll_interval: timedelta | float = 30.0,
        algorithm: str = "timestamp",
        sentinel: str = "",
    ) -> None:
        conditions = ObjectFilter.from_argument(
            filter, suffix=suffix, glob=glob, regex=regex, min_size=min_size, ignore=ignore
        )
        arguments = ServiceJobsArguments(
            asset_name=asset_name,
            conn_id=conn_id,
            service=service,
            states=tuple(states),
            submitted=submitted,
            members=tuple((members or {}).items()),
            filter=conditions,
            start=start.isoformat() if isinstance(start, datetime) else start,
            poll_interval=seconds(poll_interval),
            algorithm=algorithm,
            sentinel=sentinel,
        )
        super().__init__(arguments)
