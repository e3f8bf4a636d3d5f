# SPDX-License-Identifier: Apache-2.0
"""The outside systems of a world, whichever they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from oscar_testbed.fakes.slurm import BatchSystem

from tests.integration.faults.uploads import Inbox
from tests.world.wire import Wire

if TYPE_CHECKING:
    from tests.world.incidents import Incidents
    from tests.world.stage import World

#: Of the provider's pods and Secrets.
OURS = {"app.kubernetes.io/managed-by": "airflow-provider-oscar"}


class KillableServer(Protocol):
    """A server that ends as a crash does, and comes back with what it has stored."""

    def kill(self) -> None:
        """End it so."""

    def start(self) -> None:
        """Return once it answers."""


class Site(Protocol):
    """A context manager; everything runs while it is open.

    :ivar image: what pods and SLURM jobs call an image with ``python3``.
    :ivar wires: what breaks the ways to servers, by their names.
    :ivar variables: further environment variables of Airflow.
    """

    image: str
    wires: dict[str, Wire]
    variables: Mapping[str, str]

    @property
    def s3(self) -> KillableServer:
        """The object store."""

    @property
    def slurm(self) -> BatchSystem:
        """The batch system."""

    def __enter__(self) -> Site:
        """Start everything."""

    def __exit__(self, *_: object) -> None:
        """Stop everything."""

    def connections(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the Airflow connections by id; they hold secrets."""

    def share(self, port: int) -> str:
        """Return the address, host and port, under which jobs find a port of loopback."""

    def inboxes(self) -> Sequence[Inbox]:
        """Return new ones, of the bucket ``inbox`` and of dCache's directory ``inbox``."""

    def incidents(self, world: World) -> Incidents:
        """Return what can go wrong here."""

    def ours(self) -> Sequence[tuple[str, str, str]]:
        """Return the pods and Secrets with the labels :data:`OURS`: what it is, its namespace and its name."""


def wired(wires: dict[str, Wire], keep: Callable[[Callable[[], None]], object]) -> Callable[[str, str], str]:
    """Return a function that puts a wire before a server, given its name and URL, and returns the URL to use.

    :param wires: gets each wire under its name.
    :param keep: told what has to be called in the end.
    """

    def through(name: str, url: str) -> str:
        wires[name] = wire = Wire(url)
        keep(wire.stop)
        wire.start()
        return urlsplit(url)._replace(netloc=urlsplit(wire.url).netloc).geturl()

    return through
