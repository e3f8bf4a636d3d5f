# SPDX-License-Identifier: Apache-2.0
"""The two calls of Rucio's REST API that tell the files of a dataset: a token, and the list.

Source: Rucio 41, ``web/rest/flaskapi/v1/auth.py`` and ``dids.py``. It speaks HTTP by itself, since
``rucio-clients`` wants a configuration file on every machine and keeps tokens on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import httpx

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, bare_url, quoted
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.http.closing import closes_itself
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.errors import is_page
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, transport_error
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.timeouts import read_timeout
from airflow_provider_oscar.hooks.http.tls import read_verify, tls_context

if TYPE_CHECKING:
    from airflow.sdk import Connection

#: How a token is got; ``token`` has one already, such as one of OpenID Connect.
AUTH_TYPES = ("userpass", "x509", "x509_proxy", "token")
#: Files of one dataset.
MOST_FILES = 1_000_000
_STREAM = "application/x-json-stream"
#: Bytes of a list of files, of which each takes some 200, and of any other answer.
_LONGEST_LIST, _LONGEST_OTHER = 256 * 1024 * 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class RucioSettings:
    """What a connection says about a Rucio server; ``repr`` shows no secret.

    :param conn_id: names the connection in messages.
    :param host: URL of the server.
    :param auth_host: URL of the server that gives tokens.
    :param auth_type: one of :data:`AUTH_TYPES`.
    :param account: Rucio account; empty for the only one of the user.
    :param login: user name.
    :param password: of the user, or the token itself.
    :param vo: virtual organisation; empty for the only one of the server.
    :param verify: whether certificates are checked, or the path of a CA bundle.
    :param cert_file: certificate or proxy in PEM form.
    :param key_file: its private key; empty if the certificate file holds it.
    :param timeouts: seconds to connect, and between two bytes of an answer.
    """

    conn_id: str
    host: str
    auth_host: str
    auth_type: str
    account: str
    login: str
    password: str = field(repr=False)
    vo: str
    verify: bool | str
    cert_file: str
    key_file: str
    timeouts: tuple[float, float]

    @classmethod
    def from_connection(cls, connection: Connection) -> RucioSettings:
        """Read a connection of any type: host, login, password, and the other fields as extras.

        :raises DefinitionError: naming the field that is missing or wrong.
        """
        conn_id, extra = connection.conn_id, connection.extra_dejson
        host = str(connection.host or extra.get("rucio_host") or "").rstrip("/")
        if "://" not in host and host:
            host = f"https://{host}{f':{connection.port}' if connection.port else ''}"
        auth_type = str(extra.get("auth_type") or ("userpass" if connection.login else "token"))
        auth_host = str(extra.get("auth_host") or host).rstrip("/")
        for url in (host, auth_host):
            if not url.startswith(("https://", "http://localhost", "http://127.0.0.1")) or bare_url(url) != url:
                raise DefinitionError(
                    f"connection {conn_id!r}: the host is {quoted(bare_url(url))}; expected https://rucio.example.org, "
                    "without login, query and fragment"
                )
        require_word(auth_type, AUTH_TYPES, f"connection {conn_id!r}: extra 'auth_type'")
        if auth_type in ("userpass", "token") and not connection.password:
            raise DefinitionError(f"connection {conn_id!r}: the password is empty; auth_type {auth_type!r} needs one")
        return cls(
            conn_id=conn_id,
            host=host,
            auth_host=auth_host,
            auth_type=auth_type,
            account=str(extra.get("account") or ""),
            login=connection.login or "",
            password=connection.password or "",
            vo=str(extra.get("vo") or ""),
            verify=read_verify(extra.get("verify"), conn_id=conn_id),
            cert_file=str(extra.get("cert_file") or ""),
            key_file=str(extra.get("key_file") or ""),
            timeouts=(
                read_timeout(extra, "connect_timeout", 10.0, conn_id=conn_id),
                read_timeout(extra, "read_timeout", 60.0, conn_id=conn_id),
            ),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class RucioClient:
    """Asks one Rucio server; safe to use from several threads.

    :param settings: what the connection says.
    :param transport: for tests.
    """

    def __init__(self, settings: RucioSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        self.settings = settings
        self._token = settings.password if settings.auth_type == "token" else ""
        connect, read = settings.timeouts
        client = httpx.Client(
            verify=tls_context(
                settings.verify, cert_file=settings.cert_file, key_file=settings.key_file, conn_id=settings.conn_id
            ),
            timeout=httpx.Timeout(read, connect=connect),
            cookies=cookie_jar(),
            transport=transport,
        )
        self._http = closes_itself(paced(client))

    def files(self, scope: str, name: str) -> Iterator[Mapping[str, object]]:
        """Yield what is known of each file of a dataset or container: scope, name, bytes, adler32, guid.

        What cannot be read is an empty mapping.

        :param scope: of the dataset.
        :param name: of the dataset.
        :raises FileNotFoundError: if there is no such dataset.
        :raises PermissionError: if the server refuses the account.
        :raises TransientError: if the server cannot answer now, or its answer was cut short.
        """
        url = f"{self.settings.host}/dids/{quote_plus(scope)}/{quote_plus(name)}/files"
        answer = self._get(url)
        if not answer.headers.get("Content-Type", "").startswith(_STREAM):
            # Rucio says so of an empty list too (flaskapi/v1/common.py, try_stream).
            raise TransientError(
                f"{self._display_name}: {url} answered with no list of files; check the host, and any proxy"
            )
        for number, line in enumerate(filter(bytes.strip, answer.body.split(b"\n"))):
            if number >= MOST_FILES:
                raise PermanentError(
                    f"{self._display_name}: {quoted(f'{scope}:{name}')} has more than {MOST_FILES} files"
                )
            try:
                found = parse_json(line)
            except ValueError:
                found = None
            yield found if isinstance(found, dict) else {}

    @property
    def _display_name(self) -> str:
        return f"Rucio connection {self.settings.conn_id!r}"

    def _get(self, url: str) -> _Answer:
        for attempt in (1, 2):
            fresh = not self._token
            answer = self._send(url, {"X-Rucio-Auth-Token": self._authorised(), "Accept": _STREAM})
            if answer.status != 401 or fresh or self.settings.auth_type == "token" or attempt == 2:
                break
            self._token = ""  # it has expired; Rucio's tokens live for an hour
        return self._checked(answer, url)

    def _authorised(self) -> str:
        if not self._token:
            settings = self.settings
            headers = {"Accept": "application/octet-stream", "X-Rucio-Account": settings.account}
            if settings.auth_type == "userpass":
                headers |= {"X-Rucio-Username": settings.login, "X-Rucio-Password": settings.password}
            url = f"{settings.auth_host}/auth/{settings.auth_type}"
            answer = self._checked(self._send(url, headers), url)
            self._token = answer.headers.get("X-Rucio-Auth-Token", "")
            if not self._token:
                accounts = answer.headers.get("X-Rucio-Auth-Accounts", "")
                if not accounts:
                    raise TransientError(
                        f"{self._display_name}: {url} gave no token; check the host, and any proxy before it"
                    )
                # 206: the user has several accounts
                raise DefinitionError(
                    f"{self._display_name}: the server gave no token; set the extra 'account' to one of "
                    f"{quoted(accounts)}"
                )
        return self._token

    def _send(self, url: str, headers: Mapping[str, str]) -> _Answer:
        more = {"X-Rucio-VO": self.settings.vo}
        sent = {name: value for name, value in {**headers, **more}.items() if value}
        try:
            with self._http.stream("GET", url, headers=sent) as answer:
                listed = answer.headers.get("Content-Type", "").startswith(_STREAM)
                longest = _LONGEST_LIST if listed else _LONGEST_OTHER
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > longest:
                        kind = PermanentError if listed else TransientError
                        raise kind(f"{self._display_name}: {url} answered more than {longest} bytes; refused")
                return _Answer(answer.status_code, answer.headers, bytes(body))
        except TRANSPORT_ERRORS as error:
            raise transport_error(error, request=httpx.Request("GET", url), display_name=self._display_name) from error

    def _checked(self, answer: _Answer, url: str) -> _Answer:
        said = f"{self._display_name}: {url} answered {answer.status}"
        name = answer.headers.get("ExceptionClass", "")
        if answer.status in (200, 206) and not is_page(answer.headers, answer.body):
            return answer
        if answer.status < 500 and answer.status not in (408, 425, 429) and not name:
            # Rucio names the exception of each refusal (flaskapi/v1/common.py); a proxy says nothing of a dataset.
            raise TransientError(f"{said}, but not as Rucio does; check the host of the connection, and any proxy")
        reply = f"{name} {answer.headers.get('ExceptionMessage', '')}".strip()
        words = f"{said} {quoted(reply)}"
        if answer.status == 404:
            raise FileNotFoundError(words)
        if answer.status in (401, 403):
            raise PermissionError(words)
        if answer.status in (400, 406):
            raise PermanentError(words)
        raise TransientError(words)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._http.close()
