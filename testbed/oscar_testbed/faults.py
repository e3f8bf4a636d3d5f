# SPDX-License-Identifier: Apache-2.0
"""What can be made to go wrong in the embedded platform, switchable while it runs.

State only; the components look at it where the fault would strike. One-time incidents such as a
restart are methods of the components (``platform.dcache.restart_frontend()``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Self

from oscar_testbed.errors import RejectedError


@dataclass(kw_only=True)
class ComponentFaults:
    """Faults of one component: plain fields, read and set from any thread.

    A field that counts ("the next N requests") is consumed by :meth:`take`; others hold until set back.

    :param fail_next: how many of the next requests are answered with ``fail_status``.
    :param fail_status: HTTP status of those answers.
    :param unauthorized_next: how many of the next requests are answered 401, whatever they carry.
    :param throttle_next: how many of the next requests are answered 429 with ``Retry-After: 1``.
    :param slow_headers: seconds before the answer to any request begins.
    """

    fail_next: int = 0
    fail_status: int = 503
    unauthorized_next: int = 0
    throttle_next: int = 0
    slow_headers: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False, compare=False)

    def take(self, name: str) -> bool:
        """Count field ``name`` down and say whether there was one left."""
        with self._lock:
            left = int(getattr(self, name))
            if left <= 0:
                return False
            setattr(self, name, left - 1)
            return True

    def refusal(self) -> int | None:
        """The status with which a request is refused that comes now, or None; counts the fault down."""
        for name, status in (("throttle_next", 429), ("unauthorized_next", 401), ("fail_next", self.fail_status)):
            if self.take(name):
                return status
        return None

    def set(self, **changes: Any) -> None:
        """Set several fields at once.

        :raises RejectedError: if there is no such fault.
        """
        known = {each.name for each in fields(self) if each.init}
        if unknown := sorted(set(changes) - known):
            raise RejectedError(f"{type(self).__name__} has no {unknown}; it has {sorted(known)}")
        with self._lock:
            for name, value in changes.items():
                setattr(self, name, value)

    def clear(self) -> None:
        """Set every field back to its default."""
        fresh = type(self)()
        self.set(**{each.name: getattr(fresh, each.name) for each in fields(self) if each.init})

    @contextlib.contextmanager
    def during(self, **changes: Any) -> Iterator[Self]:
        """Set fields for the length of a ``with`` block; afterwards they are as before."""
        before = {name: getattr(self, name) for name in changes if hasattr(self, name)}
        self.set(**changes)
        try:
            yield self
        finally:
            self.set(**before)

    def copy(self) -> Self:
        """Return an independent copy."""
        return replace(self)


@dataclass(kw_only=True)
class DCacheFaults(ComponentFaults):
    """Faults of the embedded dCache; the inherited ones strike the WebDAV door and the frontend alike, or one of them.

    :param only: ``door`` or ``frontend``: the part that the inherited faults strike; empty for both.
    :param ring_size: events kept per channel; real dCache keeps 16383. Applies to channels made later.
    :param drop_events: how many of the next inotify events are lost, and ``IN_Q_OVERFLOW`` is sent instead.
    :param lose_events_silently: how many of the next inotify events are lost without a word.
    :param empty_propfind: how many of the next PROPFIND answers are a 207 without children, as real dCache
        answers when its own listing fails.
    :param truncate_listings: how many of the next listings (PROPFIND and namespace) stop half-way through the body.
    :param overlapping_pages: namespace pages are in a new order each time, so that pages overlap and miss.
    :param listing_failures: how many of the next namespace listings answer 500.
    :param full: its pools are, so that no file can be written; what is there can be read.
    :param keep_partial_uploads: a broken upload leaves its entry behind, without size.
    :param rate_limit: three 401 within 20 s bring 429 for 10 s, per client address and part, as since 2025.
    :param clock_offset: added to the store's clock: to ``Date``, and to times of entries changed from now on.
    :param staging_delay: seconds until a tape-resident file is online after it was asked for.
    :param staging_failures: how many of the next files to be staged fail.
    """

    only: str = ""
    ring_size: int = 16383
    drop_events: int = 0
    lose_events_silently: int = 0
    empty_propfind: int = 0
    truncate_listings: int = 0
    overlapping_pages: bool = False
    listing_failures: int = 0
    full: bool = False
    keep_partial_uploads: bool = False
    rate_limit: bool = True
    clock_offset: timedelta = timedelta(0)
    staging_delay: float = 0.1
    staging_failures: int = 0

    def refusal_at(self, part: str) -> int | None:
        """The same as :meth:`refusal`, for one part of the server."""
        return self.refusal() if self.only in ("", part) else None

    def delay_at(self, part: str) -> float:
        """Seconds before an answer of a part begins."""
        return self.slow_headers if self.only in ("", part) else 0.0


@dataclass(kw_only=True)
class OscarFaults(ComponentFaults):
    """Faults of the embedded OSCAR API.

    :param slow_create: seconds a service create or delete takes; 6 and more in reality.
    :param suspended: seconds a new job has no pod, so that it is listed as Suspended and its log answers 500.
    :param page_size: jobs per page of the job list; 70 in reality.
    :param ignore_delegated_id: servers before 4.1 ignore ``X-Delegated-Job-ID``.
    :param flat_job_list: servers before 3.6.4 answer the job list without pages.
    :param lose_next_jobs: how many of the next jobs are accepted and never seen again, as delegated ones are.
    :param no_room: no node has room for a job, so that jobs of federated services go to a member.
    :param forbidden_as_empty: lists and logs answer 200 with an empty body, as to users who may not see them.
    :param requests_per_second: how fast job lists are answered, as OSCAR's own Kubernetes client holds back; 5 in
        reality, 0 for no limit.
    :param strict: the FaaS Supervisor passes the script's exit code on, as upstream's does not.
    """

    slow_create: float = 0.0
    suspended: float = 0.0
    page_size: int = 70
    ignore_delegated_id: bool = False
    flat_job_list: bool = False
    lose_next_jobs: int = 0
    no_room: bool = False
    forbidden_as_empty: bool = False
    requests_per_second: float = 0.0
    strict: bool = False


@dataclass(kw_only=True)
class KubernetesFaults(ComponentFaults):
    """Faults of the embedded Kubernetes API.

    :param cut_logs_after: bytes after which the next log replies break off, or 0.
    :param watch_gone_next: how many of the next watches are answered with an expired resource version.
    """

    cut_logs_after: int = 0
    watch_gone_next: int = 0


@dataclass(kw_only=True)
class InterLinkFaults(ComponentFaults):
    """Faults of the embedded virtual node and its plugin.

    The first four are how the real plugin behaves; they are on where that costs no time.

    :param status_cache: seconds for which the plugin repeats its last reply, whichever pod is asked for; 10 in reality.
    :param cancelled_succeeds: a job cancelled while pending reports exit code 0.
    :param mangled_codes: the exit code of a container that never ran is cut from SLURM's raw wait status.
    :param hide_init_logs: the log of an init container is the job's log only.
    :param empty_containers: status replies list no container, which the virtual node takes for success.
    :param sbatch_stderr: text ``sbatch`` prints on standard error; the plugin takes any for a refusal.
    :param orphan_jobs: how many of the next deletions do not reach the plugin, as when it is down.
    :param down: the plugin does not answer; the node turns NotReady and statuses stay as they were.
    """

    status_cache: float = 0.0
    cancelled_succeeds: bool = True
    mangled_codes: bool = True
    hide_init_logs: bool = True
    empty_containers: bool = False
    sbatch_stderr: str = ""
    orphan_jobs: int = 0
    down: bool = False


@dataclass(kw_only=True)
class SlurmFaults(ComponentFaults):
    """Faults of the built-in queue; real SLURM takes none.

    :param refuse: text with which ``sbatch`` refuses every job, or empty.
    :param hold_pending: no queued job is started while set.
    """

    refuse: str = ""
    hold_pending: bool = False


@dataclass(kw_only=True)
class Faults:
    """The faults of every component: ``platform.faults.dcache.fail_next = 3``."""

    dcache: DCacheFaults = field(default_factory=DCacheFaults)
    oscar: OscarFaults = field(default_factory=OscarFaults)
    kubernetes: KubernetesFaults = field(default_factory=KubernetesFaults)
    interlink: InterLinkFaults = field(default_factory=InterLinkFaults)
    slurm: SlurmFaults = field(default_factory=SlurmFaults)

    def clear(self) -> None:
        """Mend everything."""
        for each in (self.dcache, self.oscar, self.kubernetes, self.interlink, self.slurm):
            each.clear()
