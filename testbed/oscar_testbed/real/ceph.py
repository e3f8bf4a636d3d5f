# SPDX-License-Identifier: Apache-2.0
"""Ceph's RADOS gateway, an S3 server that pushes bucket notifications over HTTP, on a cluster of one that forgets.

One monitor and one object daemon that keeps everything in memory, on loopback, without authentication between
themselves; the gateway checks S3 signatures.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until
from oscar_testbed.programs import missing
from oscar_testbed.real.base import run

log = logging.getLogger(__name__)

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
#: The gateway makes its pools when it starts for the first time.
_START_SECONDS = 120.0
_MEMORY = 1024**3
_CONFIGURATION = """
[global]
fsid = {fsid}
auth cluster required = none
auth service required = none
auth client required = none
public addr = {loopback}
cluster addr = {loopback}
ms bind msgr2 = false
mon host = v1:{loopback}:{mon}
mon initial members = a
mon allow pool size one = true
mon allow pool delete = true
mon data avail crit = 1
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {memory}
run dir = {directory}/run
admin socket = {directory}/run/$name.asok
pid file = {directory}/run/$name.pid
crash dir = {directory}/crash
log file = {directory}/$name.log
mon cluster log file = {directory}/cluster.log
[mon.a]
mon data = {directory}/mon
mon addr = v1:{loopback}:{mon}
[osd.0]
osd data = {directory}/osd
[client.rgw.a]
rgw data = {directory}/rgw
rgw frontends = beast endpoint={loopback}:{s3}
rgw enable apis = s3, admin, notifications
rgw trust forwarded https = true
"""


def missing_programs() -> tuple[str, ...]:
    """Those of :data:`PROGRAMS` that are not installed."""
    return missing(PROGRAMS)


class CephGateway:
    """ceph-mon, ceph-osd and radosgw.

    :param directory: configuration, state and logs; short, for the sake of Unix sockets.
    """

    name = "Ceph RADOS gateway"
    real = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log_path = self.directory
        self.access_key = self.secret_key = ""
        self._config = self.directory / "ceph.conf"
        self._port = 0
        self._daemons: list[Program] = []

    @property
    def version(self) -> str:
        """From the program."""
        return run(["radosgw", "--version"]).split()[2]

    @property
    def endpoint(self) -> str:
        """Where it serves S3, and the notification topics."""
        return f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        """Make the cluster again, and return once the gateway answers and has a user.

        :raises MissingPrerequisite: when programs are not installed.
        """
        if lack := missing_programs():
            raise MissingPrerequisite(
                f"{', '.join(lack)} not found; install ceph-mon, ceph-osd, ceph-common and radosgw"
            )
        for name in ("mon", "osd", "rgw", "run", "crash"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; what was stored is gone."""
        while self._daemons:
            self._daemons.pop().stop()

    def healthy(self) -> bool:
        """Whether the gateway lists buckets."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client("s3", connect_timeout=2, read_timeout=10).list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return bool(self._daemons)

    def client(self, service: str = "s3", **settings: Any) -> Any:
        """A boto3 client with the user's keys: ``s3``, or ``sns`` for topics.

        :param settings: more ``botocore.config.Config`` settings.
        """
        import boto3
        from botocore.config import Config

        chosen: dict[str, Any] = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1}}
        make: Any = boto3.session.Session().client  # its stubs know a service by its literal name only
        return make(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="default",
            config=Config(**chosen | settings),
        )

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it; holds the credentials."""
        return {
            "conn_type": "oscar_s3",
            "host": self.endpoint,
            "login": self.access_key,
            "password": self.secret_key,
        }

    def notify(self, bucket: str, topic: str, endpoint: str) -> None:
        """Tell every new object of a bucket to an HTTP endpoint.

        :param endpoint: a URL; may hold a login.
        """
        # Topics of this release are signed as of old.
        topics = self.client("sns", signature_version="s3")
        # An endpoint with a login is taken over TLS only; this is what a proxy that ends TLS says.
        topics.meta.events.register("before-send.sns.*", _through_tls)
        made = topics.create_topic(Name=topic, Attributes={"push-endpoint": endpoint, "OpaqueData": "of the test"})
        notify = {"Id": topic, "TopicArn": made["TopicArn"], "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        self.client().put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [notify]}
        )

    def _start(self) -> None:
        monitor, self._port = free_ports(2)
        fsid = str(uuid.uuid4())
        values = {"directory": self.directory, "mon": monitor, "s3": self._port, "memory": _MEMORY}
        self._config.write_text(_CONFIGURATION.format(fsid=fsid, loopback=LOOPBACK, **values))
        monmap = str(self.directory / "monmap")
        address = f"[v1:{LOOPBACK}:{monitor}]"
        run(["monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap])
        run(["ceph-mon", *self._as("mon.a"), "--mkfs", "--monmap", monmap])
        monitor_daemon = self._daemon("ceph-mon", "mon.a")
        osd = str(uuid.uuid4())
        wait_until(
            lambda: self._ceph("osd", "new", osd) is not None,
            what="the monitor takes an object daemon",
            timeout=_START_SECONDS,
            program=monitor_daemon,
        )
        run(["ceph-osd", *self._as("osd.0"), "--mkfs", "--osd-uuid", osd])
        daemon = self._daemon("ceph-osd", "osd.0")
        wait_until(lambda: self._osd_is_up(daemon), what="the object daemon is up", timeout=_START_SECONDS)
        gateway = self._daemon("radosgw", "client.rgw.a")
        self._make_user()
        wait_until(self.healthy, what="the gateway lists buckets", timeout=_START_SECONDS, program=gateway)

    def _as(self, name: str) -> list[str]:
        owner = ["--setuser", "root", "--setgroup", "root"] if os.geteuid() == 0 else []
        return [f"--name={name}", f"--conf={self._config}", *owner]

    def _daemon(self, program: str, name: str) -> Program:
        daemon = Program(
            program, [program, *self._as(name), "--foreground"], log_path=self.directory / f"{program}.out"
        )
        self._daemons.append(daemon)
        daemon.start()
        return daemon

    def _ceph(self, *words: str) -> str | None:
        """What a command printed; None when it failed, which a young monitor now and then makes it for no reason."""
        try:
            return run(["ceph", f"--conf={self._config}", "--connect-timeout=60", *words])
        except PlatformError as error:
            log.info("%s", error)
            return None

    def _osd_is_up(self, daemon: Program) -> bool:
        """Start it again where it ended, as Ceph's unit for systemd does.

        In 16.2 it may send its first command before it knows the cluster's identity, is told "wrong fsid", and ends.
        """
        try:
            daemon.require_running()
        except PlatformError as error:
            log.warning("%s It is started again.", error)
            daemon.start()
        answer = self._ceph("osd", "stat", "--format=json")
        return answer is not None and bool(json.loads(answer).get("num_up_osds"))

    def _make_user(self) -> None:
        """Let the gateway's tool make up the keys: on its command line everybody could read them."""
        words = ["user", "create", "--uid=tester", "--display-name=tester", "--format=json"]
        made = json.loads(_json_part(run(["radosgw-admin", *self._as("client.rgw.a"), *words])))
        key = made["keys"][0]
        self.access_key, self.secret_key = key["access_key"], key["secret_key"]


def _json_part(text: str) -> str:
    """Ceph's tools may grumble before they answer."""
    return text[text.index("{") :]


def _through_tls(request: Any, **_: Any) -> None:
    request.headers["X-Forwarded-Proto"] = "https"
