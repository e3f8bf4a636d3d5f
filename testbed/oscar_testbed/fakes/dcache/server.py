# SPDX-License-Identifier: Apache-2.0
"""The embedded dCache as one component: the door, its pool and the frontend over one namespace."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from oscar_testbed.errors import PlatformError
from oscar_testbed.fakes.dcache.access import Access
from oscar_testbed.fakes.dcache.door import Door
from oscar_testbed.fakes.dcache.entries import Entry
from oscar_testbed.fakes.dcache.events import EventHub
from oscar_testbed.fakes.dcache.frontend import Frontend
from oscar_testbed.fakes.dcache.namespace import Namespace, Upload
from oscar_testbed.fakes.dcache.pool import Pool
from oscar_testbed.fakes.dcache.tape import Tape
from oscar_testbed.faults import DCacheFaults
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, wait_until
from oscar_testbed.webserver import AsgiServer, from_wsgi

_START_SECONDS = 20.0


class LocalDCache:
    """A dCache with one user, ``airflow``, on loopback over plain HTTP.

    :param directory: holds the names, the bytes and the password.
    :param faults: switchable while it runs.
    """

    user = "airflow"

    def __init__(self, directory: Path, *, faults: DCacheFaults | None = None) -> None:
        self.directory = directory
        self.log_path = directory / "dcache.log"
        self.faults = faults or DCacheFaults()
        self.access = Access(self.faults)
        self._namespace: Namespace | None = None
        self._hub: EventHub | None = None
        self._tape: Tape | None = None
        self._pool: Pool | None = None
        self._door: AsgiServer | None = None
        self._frontend: AsgiServer | None = None
        self._ports = (0, 0)

    @property
    def namespace(self) -> Namespace:
        """The namespace behind the doors; what is done here is seen by watchers like any client's work."""
        if self._namespace is None:
            raise PlatformError("the embedded dCache is not running; call start() first")
        return self._namespace

    @property
    def password(self) -> str:
        """Password of :attr:`user`."""
        return self.access.passwords.get(self.user, "")

    @property
    def webdav_url(self) -> str:
        """Base URL of the WebDAV door, without a slash at the end."""
        return f"http://{LOOPBACK}:{self._ports[0]}"

    @property
    def frontend_url(self) -> str:
        """Base URL of the REST frontend, without ``/api/v1``."""
        return f"http://{LOOPBACK}:{self._ports[1]}"

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it (type ``dcache``); holds the password."""
        return {
            "conn_type": "dcache",
            "host": self.webdav_url,
            "login": self.user,
            "password": self.password,
            "extra": {"frontend_url": self.frontend_url},
        }

    def start(self) -> None:
        """Return once both doors answer. After a stop, ports, password and data are the same."""
        if self._door is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._load_password()
        try:
            self._start()
            wait_until(self.healthy, what="the embedded dCache answers", timeout=_START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both doors; open transfers and event streams are cut."""
        if self._hub is not None:
            self._hub.lose_everything(announce=True)
        for part in (self._frontend, self._door, self._pool.server if self._pool else None, self._tape):
            if part is not None:
                part.stop()
        self._door = self._frontend = self._pool = self._hub = self._tape = None
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None

    def healthy(self) -> bool:
        """Whether both doors answer; does not count as a login."""
        return self._door is not None and all(_answers(port) for port in self._ports)

    def put(self, path: str, data: bytes, *, locality: str = "ONLINE") -> Entry:
        """Write a whole file, as a client would.

        :param locality: ``ONLINE``, ``ONLINE_AND_NEARLINE``, or ``NEARLINE`` for a file on tape only.
        """
        return self.namespace.put(path, data, locality=locality)

    def begin_upload(self, path: str) -> Upload:
        """Begin a file and leave it without size until ``commit()`` (or ``abort()``) of the upload."""
        return self.namespace.begin_upload(path)

    def drop_event_streams(self) -> None:
        """Cut every SSE connection; channels and their buffers stay."""
        if self._hub is not None:
            self._hub.drop_streams()

    def announce_event_loss(self) -> None:
        """Send ``SYSTEM EVENT_LOSS`` to every SSE connection."""
        if self._hub is not None:
            self._hub.announce_event_loss()

    def overflow_queues(self) -> None:
        """Send ``IN_Q_OVERFLOW`` to every watch."""
        if self._hub is not None:
            self._hub.overflow()

    def stop_frontend(self, *, announce: bool = True) -> None:
        """Stop the REST frontend alone; every channel is lost. WebDAV goes on."""
        if self._frontend is not None and self._hub is not None:
            self._hub.lose_everything(announce=announce)
            self._frontend.stop()

    def restart_frontend(self, *, announce: bool = False) -> None:
        """Restart the REST frontend on its port; channels answer 404 afterwards.

        :param announce: whether listeners get ``SYSTEM SHUTDOWN`` first.
        """
        self.stop_frontend(announce=announce)
        if self._frontend is not None:
            self._frontend.start()

    def _start(self) -> None:
        self._namespace = Namespace(self.directory, self.faults)
        self._hub = EventHub(self._namespace, lambda: f"{self.frontend_url}/api/v1")
        self._namespace.listener = self._hub.hear
        self._tape = Tape(self._namespace)
        self._pool = Pool(self._namespace)
        self._pool.server.start()
        door = Door(self._namespace, self.access, self._pool, self._tape.bring_online)
        self._door = AsgiServer(from_wsgi(door), port=self._ports[0], date_header=False)
        self._door.start()
        frontend = Frontend(self._namespace, self.access, self._hub, self._tape)
        self._frontend = AsgiServer(frontend.app, port=self._ports[1], date_header=False)
        self._frontend.start()
        self._ports = (self._door.port, self._frontend.port)
        door.url = self.webdav_url

    def _load_password(self) -> None:
        if self.password:
            return
        path = self.directory / "credentials.json"
        if path.exists():
            self.access.passwords[self.user] = json.loads(path.read_text(encoding="utf-8"))["password"]
            return
        write_private(path, json.dumps({"password": self.access.add_user(self.user)}))


def _answers(port: int) -> bool:
    """Whether an HTTP server listens; a connection alone, since a request without login would be counted."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
