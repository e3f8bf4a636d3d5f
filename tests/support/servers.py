# SPDX-License-Identifier: Apache-2.0
"""Apache with mod_dav as a real WebDAV server; an S3 store is :class:`oscar_testbed.fakes.s3.LocalS3`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.process import Program, free_port, wait_until
from oscar_testbed.programs import require_program

_MODULES_DIRECTORY = Path("/usr/lib/apache2/modules")
_MODULES = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic")
_MODULES += ("dav", "dav_fs", "setenvif", "alias")
_START_SECONDS = 60.0


@dataclass(frozen=True)
class WebDavServer:
    """A running WebDAV server: ``url`` asks for a login, ``open_url`` does not; both show ``root``."""

    url: str
    open_url: str
    root: Path
    user: str = "dav"
    password: str = "dav-secret"


_CONFIGURATION = """
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


@contextlib.contextmanager
def apache_webdav(directory: Path) -> Iterator[WebDavServer]:
    """Run Apache with mod_dav on a free port; its files are below ``directory``.

    :raises MissingPrerequisite: if Apache or one of its modules is not installed.
    """
    apache = require_program("apache2", package="apache2-bin")
    absent = [name for name in _MODULES if not (_MODULES_DIRECTORY / f"mod_{name}.so").exists()]
    if absent:
        raise MissingPrerequisite(f"Apache's modules {', '.join(absent)} are not installed", part="apache2")
    root = directory / "root"
    for folder in (root, directory / "locks"):
        folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = WebDavServer(f"http://127.0.0.1:{port}/dav", f"http://127.0.0.1:{port}/open", root)
    digest = base64.b64encode(hashlib.sha1(server.password.encode()).digest()).decode()
    (directory / "passwords").write_text(f"{server.user}:{{SHA}}{digest}\n")
    lines = [f"LoadModule {name}_module {_MODULES_DIRECTORY}/mod_{name}.so" for name in _MODULES]
    config = directory / "httpd.conf"
    config.write_text(_CONFIGURATION.format(directory=directory, port=port, root=root, modules="\n".join(lines)))
    program = Program("Apache", [str(apache), "-f", str(config), "-DFOREGROUND"], log_path=directory / "error.log")
    program.start()
    try:
        wait_until(
            lambda: _answers(f"{server.open_url}/"), what="Apache answers", timeout=_START_SECONDS, program=program
        )
        yield server
    finally:
        program.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code < 500
    except httpx.HTTPError:
        return False
