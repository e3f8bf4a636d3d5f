# SPDX-License-Identifier: Apache-2.0
"""Real servers for tests, as context managers: SeaweedFS (S3) and Apache with mod_dav (WebDAV).

Each listens on loopback at a free port, keeps its files below one directory, and is stopped on exit.
:class:`Missing` says by name which program a machine lacks.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

APACHE_MODULES = Path("/usr/lib/apache2/modules")
START_SECONDS = 60.0


class Missing(Exception):
    """A program that a test needs is not installed."""


@dataclass(frozen=True)
class S3Server:
    """A running S3 store with one identity that may do everything."""

    endpoint: str
    access_key: str = "tester"
    secret_key: str = "tester-secret"


@dataclass(frozen=True)
class WebDavServer:
    """A running WebDAV server: ``url`` asks for a login, ``open_url`` does not; both show ``root``."""

    url: str
    open_url: str
    root: Path
    user: str = "dav"
    password: str = "dav-secret"


def find_program(name: str) -> str:
    """Return the path of a program beside this interpreter, on the PATH, or in the administrator's folders."""
    beside = Path(sys.executable).parent / name
    found = (
        (str(beside) if beside.exists() else None) or shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    )
    if not found:
        raise Missing(f"the program {name!r} is not installed")
    return found


def free_port(*, companion: int = 0) -> int:
    """Return a free loopback port; with ``companion``, the port that much above is free as well."""
    for _ in range(200):
        port = random.randint(20_000, 45_000)
        with contextlib.ExitStack() as stack:
            try:
                for number in {port, port + companion}:
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


@contextlib.contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """Run SeaweedFS with its S3 gateway; telemetry off, loopback only."""
    weed = find_program("weed")
    directory.mkdir(parents=True, exist_ok=True)
    data = directory / "data"
    data.mkdir(exist_ok=True)
    server_ports = [free_port(companion=10_000) for _ in range(4)]
    master, volume, filer, s3 = server_ports
    server = S3Server(f"http://127.0.0.1:{s3}")
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
        "actions": ["Read:readable", "List:readable"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity, reader]}))
    command = [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
        f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={config}",
        "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-volume.max=50", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with _running(command, directory / "weed.log") as process:
        _wait(process, lambda: _s3_takes_writes(server), "SeaweedFS", directory / "weed.log")
        yield server


def _s3_takes_writes(server: S3Server) -> bool:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )
    try:
        client.create_bucket(Bucket="probe")
    except ClientError as error:
        if "BucketAlready" not in str(error):
            return False
    except BotoCoreError:
        return False
    try:
        client.put_object(Bucket="probe", Key="ready", Body=b"1")
    except (BotoCoreError, ClientError):
        return False
    return True


APACHE_CONFIG = """
ServerName 127.0.0.1
ServerRoot {directory}
PidFile {directory}/httpd.pid
ErrorLog {directory}/error.log
Listen 127.0.0.1:{port}
{modules}
DavLockDB {directory}/locks/db
DocumentRoot {root}
LimitXMLRequestBody 1048576
AllowEncodedSlashes NoDecode
Alias /dav {root}
Alias /open {root}
<Directory {root}>
  Dav On
  Options Indexes
  Require all granted
</Directory>
<Location /dav>
  AuthType Basic
  AuthName dav
  AuthBasicProvider file
  AuthUserFile {directory}/passwords
  Require valid-user
</Location>
"""
MODULES = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic")
MODULES += ("dav", "dav_fs", "setenvif", "alias")


@contextlib.contextmanager
def apache_webdav(directory: Path) -> Iterator[WebDavServer]:
    """Run Apache with mod_dav."""
    apache = find_program("apache2")
    absent = [name for name in MODULES if not (APACHE_MODULES / f"mod_{name}.so").exists()]
    if absent:
        raise Missing(f"Apache's modules {', '.join(absent)} are not installed")
    root = directory / "root"
    for folder in (root, directory / "locks"):
        folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = WebDavServer(f"http://127.0.0.1:{port}/dav", f"http://127.0.0.1:{port}/open", root)
    (directory / "passwords").write_text(f"{server.user}:{{SHA}}{_sha(server.password)}\n")
    lines = [f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in MODULES]
    config = directory / "httpd.conf"
    config.write_text(APACHE_CONFIG.format(directory=directory, port=port, root=root, modules="\n".join(lines)))
    with _running([apache, "-f", str(config), "-DFOREGROUND"], directory / "apache.log") as process:
        _wait(process, lambda: _answers(server.open_url + "/"), "Apache", directory / "error.log")
        yield server


def _sha(password: str) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > deadline or process.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{name} did not start:\n{tail}")
        time.sleep(0.1)
