# SPDX-License-Identifier: Apache-2.0
"""The embedded platform as a site: its servers also fail by switches of their own."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oscar_testbed import LocalImage, LocalPlatform
from oscar_testbed.fakes.s3 import LocalS3, open_client
from oscar_testbed.fakes.slurm import BatchSystem
from oscar_testbed.fakes.slurm.real import RealSlurm
from oscar_testbed.faults import ComponentFaults, Faults
from oscar_testbed.process import LOOPBACK

from tests.integration.faults.uploads import DCacheInbox, Inbox, S3Inbox
from tests.world.incidents import Incidents
from tests.world.site import OURS, wired
from tests.world.wire import Wire

if TYPE_CHECKING:
    from tests.world.stage import World

#: More requests than come while an incident lasts.
_MANY = 1_000_000


class EmbeddedSite:
    """See :class:`~tests.world.site.Site`.

    :param directory: holds everything.
    """

    image = "world"

    def __init__(self, directory: Path) -> None:
        image = LocalImage(self.image, path=(Path(sys.executable).parent,))
        self.platform = LocalPlatform(directory, images={self.image: image})
        self.wires: dict[str, Wire] = {}
        self.variables: Mapping[str, str] = {}
        self._connections: dict[str, Mapping[str, Any]] = {}
        self._running = contextlib.ExitStack()

    def __enter__(self) -> EmbeddedSite:
        with self._running as running:
            running.enter_context(self.platform)
            for bucket in ("inbox", "results"):
                self.platform.s3.create_bucket(bucket)
            for place in ("/inbox", "/results"):
                self.platform.dcache.namespace.mkdir(place)
            through = wired(self.wires, running.callback)
            self._connections = dict(self.platform.connections)
            for name, conn_id in (("s3", "oscar_s3_default"), ("oscar", "oscar_default")):
                found = self._connections[conn_id]
                self._connections[conn_id] = {**found, "host": through(name, found["host"])}
            self._running = running.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def s3(self) -> LocalS3:
        """The object store."""
        return self.platform.s3

    @property
    def slurm(self) -> BatchSystem:
        """The batch system."""
        return self.platform.slurm

    def connections(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the Airflow connections."""
        return self._connections

    def share(self, port: int) -> str:
        """Jobs are processes of this machine."""
        return f"{LOOPBACK}:{port}"

    def inboxes(self) -> Sequence[Inbox]:
        """Return new ones, which use the servers themselves."""
        s3 = self.platform.s3
        return (
            S3Inbox(lambda: open_client(s3.endpoint, s3.access_key, s3.secret_key, s3.region)),
            DCacheInbox(self.platform.dcache),
        )

    def incidents(self, world: World) -> Incidents:
        """Return what can go wrong here."""
        return EmbeddedIncidents(world, self.platform)

    def ours(self) -> Sequence[tuple[str, str, str]]:
        """Look into Kubernetes itself."""
        return [
            (plural[:-1], each["metadata"]["namespace"], each["metadata"]["name"])
            for plural in ("pods", "secrets")
            for each in self.platform.kubernetes.store.objects(plural)
            if each["metadata"].get("labels", {}).items() >= OURS.items()
        ]


class EmbeddedIncidents(Incidents):
    """Those of every site, and what the switches of the servers do.

    :param world: what they happen to.
    :param platform: of the site.
    """

    def __init__(self, world: World, platform: LocalPlatform) -> None:
        super().__init__(world)
        self._platform = platform

    @property
    def _faults(self) -> Faults:
        return self._platform.faults

    def mend(self) -> None:
        """See to it that nothing is wrong any more."""
        self._faults.clear()
        super().mend()

    def oscar_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.oscar, seconds, unauthorized_next=_MANY)

    def oscar_forbidden(self, seconds: float) -> None:
        """Every answer is 403."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=403)

    def oscar_not_found(self, seconds: float) -> None:
        """Every answer is 404."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=404)

    def oscar_throttled(self, seconds: float) -> None:
        """Every answer is 429."""
        self._during(self._faults.oscar, seconds, throttle_next=_MANY)

    def oscar_failing(self, seconds: float) -> None:
        """Every answer is 503."""
        self._during(self._faults.oscar, seconds, fail_next=_MANY, fail_status=503)

    def kubernetes_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.kubernetes, seconds, unauthorized_next=_MANY)

    def kubernetes_forbidden(self, seconds: float) -> None:
        """Every answer is 403."""
        self._during(self._faults.kubernetes, seconds, fail_next=_MANY, fail_status=403)

    def kubernetes_throttled(self, seconds: float) -> None:
        """Every answer is 429."""
        self._during(self._faults.kubernetes, seconds, throttle_next=_MANY)

    def kubernetes_failing(self, seconds: float) -> None:
        """Every answer is 500."""
        self._during(self._faults.kubernetes, seconds, fail_next=_MANY, fail_status=500)

    def kubernetes_hangs(self, seconds: float) -> None:
        """Requests are taken, and nothing comes."""
        self._during(self._faults.kubernetes, seconds, slow_headers=seconds)

    def dcache_full(self, seconds: float) -> None:
        """Nothing can be written; what is there can be read."""
        self._during(self._faults.dcache, seconds, full=True)

    def dcache_hangs(self, seconds: float) -> None:
        """Requests are taken, and nothing comes."""
        self._during(self._faults.dcache, seconds, slow_headers=seconds)

    def dcache_away(self, seconds: float) -> None:
        """Door and frontend are stopped."""
        self._away(self._platform.dcache.stop, self._platform.dcache.start, seconds)

    def dcache_unauthorized(self, seconds: float) -> None:
        """Every answer is 401."""
        self._during(self._faults.dcache, seconds, unauthorized_next=_MANY)

    def dcache_failing(self, seconds: float) -> None:
        """Every answer is 503."""
        self._during(self._faults.dcache, seconds, fail_next=_MANY, fail_status=503)

    def dcache_streams_cut(self, seconds: float) -> None:
        """Event streams end."""
        self._platform.dcache.drop_event_streams()
        time.sleep(seconds)

    def dcache_events_lost(self, seconds: float) -> None:
        """Events are lost without a word, then the channel."""
        self._during(self._faults.dcache, seconds, lose_events_silently=_MANY)
        self._platform.dcache.restart_frontend(announce=True)

    def slurm_away(self, seconds: float) -> None:
        """Its controller does not answer, or starts nothing."""
        if isinstance(self._platform.slurm, RealSlurm):
            super().slurm_away(seconds)
        else:
            self._during(self._faults.slurm, seconds, hold_pending=True)

    def interlink_away(self, seconds: float) -> None:
        """The plugin does not answer; the node is not ready."""
        self._during(self._faults.interlink, seconds, down=True)

    def interlink_loses_deletes(self, seconds: float) -> None:
        """Deletions of pods do not reach the plugin."""
        self._during(self._faults.interlink, seconds, orphan_jobs=_MANY)

    def clock_steps_back(self, seconds: float) -> None:
        """The clock of dCache goes back by an hour, and forward again."""
        self._during(self._faults.dcache, seconds, clock_offset=-timedelta(hours=1))

    def clock_steps_forward(self, seconds: float) -> None:
        """The clock of dCache goes forward by an hour, and back again."""
        self._during(self._faults.dcache, seconds, clock_offset=timedelta(hours=1))

    @staticmethod
    def _during(faults: ComponentFaults, seconds: float, **changes: object) -> None:
        fresh = type(faults)()
        faults.set(**changes)
        time.sleep(seconds)
        faults.set(**{name: getattr(fresh, name) for name in changes})
