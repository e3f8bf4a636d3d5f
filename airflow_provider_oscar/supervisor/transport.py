# SPDX-License-Identifier: Apache-2.0
"""HTTP as this program needs it: kept connections, proxies, grid certificates, redirects, attempts.

The standard library's client, because nothing else is there. A connection is used again, as long as it is fresh:
thousands of small files cost one round trip each, not three.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import random
import re
import ssl
import threading
import time
import urllib.request
from typing import Any, Callable, Iterator, NoReturn
from urllib.parse import urljoin, urlsplit

from airflow_provider_oscar.supervisor.errors import EXIT_ACCESS, RefusedError, StageError, TransientError
from airflow_provider_oscar.supervisor.text import QUOTE_LIMIT, quoted, say, sentence, setting

USER_AGENT = "airflow-oscar-supervisor/1.1"
REDIRECTS = 3
LONGEST_DELAY = 60.0
#: Attempts in a row that get nowhere; with pauses of up to a minute they outlast a store that is away, or full, for ten
#: minutes: what was computed in hours is not thrown away for that.
ATTEMPTS = 26
#: Refusals in a row that decide; one or two minutes lie between the first and the last.
REFUSALS = 8
#: Errors of a file that another node, or this one later, may not have.
PASSING_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: Servers close what is idle for longer; a minute is common.
IDLE_LIMIT = 20.0
#: More than this is not read for the sake of keeping a connection.
LEFTOVER_LIMIT = 64 * 1024
#: Bodies up to this size are sent together with the headers.
SMALL_BODY = 64 * 1024
#: Beginnings of headers that S3 stores add to their answers; Google's has its own.
S3_HEADERS = ("x-amz-", "x-goog-")
#: How a page for people begins, which no store answers to an upload.
PAGE = re.compile(rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype )?html")


class Renewal:
    """How a job gets fresh access when a store refuses what it has."""

    def __init__(self) -> None:
        #: Fetches it, and returns whether there was any; None where there is no way.
        self.ask: Callable[[], bool] | None = None
        #: How often there was any.
        self.count = 0

    def worth_another_attempt(self, before: int) -> bool:
        """Whether access is fresher than when the count was ``before``."""
        return self.count > before or (self.ask is not None and self.ask())


RENEWAL = Renewal()


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def redirected(url: str, headers: dict[str, str], location: str | None) -> tuple[str, dict[str, str]]:
    """Return where a redirect leads and the headers that may go there: none, if it is another origin.

    :raises StageError: if it leads to something that is not http(s), or from https to http.
    """
    try:
        target = urljoin(url, location or "")
        new, old = origin(target), origin(url)
    except ValueError:
        target, new, old = "", ("", "", 0), ("", "", 0)
    if new[0] not in ("http", "https") or not new[1] or not re.match(r"[!-~]+\Z", target):
        raise StageError("the server redirected to something that is not an http(s) URL", reason="redirect")
    if old[0] == "https" and new[0] == "http":
        raise StageError(f"the server redirected from https to http ({quoted(new[1])}); refused", reason="redirect")
    return target, (headers if new == old else {})


def refusal(what: str, status: int, body: bytes) -> StageError:
    """Return the error for an answer that another attempt would not change."""
    detail = f" ({quoted(sentence(body))})" if body else ""
    if status in (401, 403):
        kind = StageError if re.search(rb"expired", body, re.I) else RefusedError
        return kind(
            f"the store refuses {what} with {status}: the URL or token of the job has expired or does not cover it, "
            f"or its account lacks the right; submit again, with a longer lifetime if the job waited long{detail}",
            EXIT_ACCESS,
            "access-refused",
        )
    if 300 <= status < 400:
        return StageError(
            f"the store redirects the upload of {what}, but the form's signature goes nowhere else: "
            "correct endpoint or region of the output connection",
            reason="redirect",
        )
    if status == 413 or b"EntityTooLarge" in body:
        return StageError(f"the store answers {status} for {what}: too large for it{detail}")
    return StageError(f"the store answers {status} for {what}{detail}")


def is_transient(status: int) -> bool:
    """Return whether the same request may be answered otherwise later."""
    return status in (408, 423, 425, 429) or (status >= 500 and status not in (501, 505))


def raise_for(what: str, answer: http.client.HTTPResponse, in_xml: bool = False) -> NoReturn:
    """Raise the error for an answer that is not the wanted one.

    :param in_xml: the store words its refusals in XML, as S3 does, so that others are those of a proxy.
    """
    if is_transient(answer.status):
        asked = answer.getheader("Retry-After") or ""
        delay = min(float(asked), LONGEST_DELAY) if re.match(r"[0-9]{1,6}\Z", asked) else None
        full = ": it is full" if answer.status == 507 else ""
        raise TransientError(f"the server answers {answer.status}{full}", delay=delay)
    body = read_start(answer)
    # A proxy lets nobody pass, or takes no more, whatever the store would say.
    if in_xml and 400 <= answer.status < 500 and answer.status not in (401, 403, 413):
        require_xml(answer.status, body)
    raise refusal(what, answer.status, body)


def read_start(answer: http.client.HTTPResponse) -> bytes:
    """Return how the body of a refusal begins, as far as it comes."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return answer.read(2 * QUOTE_LIMIT)
    return b""


def require_xml(status: int, body: bytes) -> None:
    """Refuse to believe a refusal that is not S3's, which are all in XML: a proxy says 404 while the store is away.

    :raises TransientError: if it is another's.
    """
    if PAGE.match(body) or body.lstrip()[:1] != b"<":
        raise TransientError(f"what answers {status} is not the store")


def refuse_page(answer: http.client.HTTPResponse, upload: bool = False, s3: bool = False) -> None:
    """Refuse what a proxy says while the store is away, or before it lets anybody pass: a page, as a success.

    An object may be a page too, and comes with headers of S3, or with its tag or date. Some stores call their XML, or
    nothing, a page.

    :param upload: the answer is one to an upload, and its body can be looked at.
    :param s3: the store is one, so that tag and date may be those of a page for an outage.
    :raises TransientError: if it is one.
    """
    kind = (answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    names = {name.lower() for name, _ in answer.getheaders()}
    if kind != "text/html" or any(each.startswith(S3_HEADERS) for each in names):
        return
    if not s3 and not names.isdisjoint(("etag", "last-modified")):
        return
    if not upload or PAGE.match(read_start(answer)):
        raise TransientError("a web page answered in the store's place")


@contextlib.contextmanager
def local_file(what: str) -> Iterator[None]:
    """Tell a full disk from a broken connection: both are OSError, only one is worth another attempt."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"cannot {what}: {error.strerror or type(error).__name__}",
            reason="local-file",
            permanent=error.errno not in PASSING_ERRORS,
        ) from error


def persist(what: str, attempt: Callable[[], object], progress: Callable[[], int] = lambda: 0) -> Any:
    """Try until it works, cannot work, or has been tried often enough.

    :param what: for messages.
    :param attempt: does it; raises :class:`TransientError`, :class:`RefusedError` or an error of the connection to be
        called again.
    :param progress: bytes kept so far; an attempt that got further starts the count again.
    :raises StageError: when it cannot work, or too many attempts in a row got nowhere.
    """
    attempts, first = max(1, int(setting("ATTEMPTS", ATTEMPTS))), setting("BACKOFF", 1.0)
    most_refusals = min(max(1, int(setting("REFUSALS", REFUSALS))), attempts)
    number, refusals, reached = 1, 0, progress()
    while True:
        renewals, refused = RENEWAL.count, False
        try:
            return attempt()
        except RefusedError as error:
            if RENEWAL.worth_another_attempt(renewals):
                continue
            refusals, refused = refusals + 1, True
            if refusals >= most_refusals:
                raise
            reason = TransientError(str(error))
        except TransientError as error:
            reason = error
        except ssl.SSLCertVerificationError as error:
            raise StageError(
                f"{what}: the server's certificate is not trusted here ({error.verify_message}); "
                "set SSL_CERT_FILE or X509_CERT_DIR in the image",
                reason="certificate",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = TransientError(
                "{}{}".format(type(error).__name__, ": " + str(error.args[-1]) if error.args else "")
            )
        refusals = refusals if refused else 0
        if progress() > reached:
            number, reached = 1, progress()
        if number >= attempts:
            raise TransientError(
                f"{what}: {reason} (gave up after {number} attempts)", reason.code, reason.reason
            ) from reason
        longest = min(first * 2.0 ** (number - 1), LONGEST_DELAY)
        delay = random.uniform(longest / 2, longest) if reason.delay is None else reason.delay
        say(f"{what}: {reason}; trying again in {delay:.1f} s")
        time.sleep(delay)
        number += 1


def proxy_for(url: str) -> str | None:
    """Return the proxy of the environment: compute nodes often have no other way out."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if not proxy or "://" in proxy else "http://" + proxy


class Connections:
    """Connections that wait to be used again, by origin; for any number of threads."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], list[tuple[float, http.client.HTTPConnection]]] = {}
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def take(self, url: str, fresh: bool = False) -> tuple[http.client.HTTPConnection, bool]:
        """Return a connection, and whether it was used before."""
        with self._lock:
            waiting = self._idle.get(origin(url), [])
            while waiting and not fresh:
                since, connection = waiting.pop()
                if time.monotonic() - since < IDLE_LIMIT:
                    return connection, True
                connection.close()
        return self._open(url), False

    def give(self, url: str, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            self._idle.setdefault(origin(url), []).append((time.monotonic(), connection))

    def close(self) -> None:
        """Close all that wait."""
        with self._lock:
            for waiting in self._idle.values():
                for _, connection in waiting:
                    connection.close()
            self._idle.clear()

    def prepare(self, url: str) -> None:
        """Load what a connection needs, which copies of this process need not load once each."""
        with contextlib.suppress(UnicodeError):
            (urlsplit(url).hostname or "").encode("idna")
        if url.startswith("https:"):
            self._context()

    def _open(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        proxy = proxy_for(url)
        timeout = setting("HTTP_TIMEOUT", 60.0)
        _, host, port = origin(proxy or url)
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context())
        if proxy:
            connection.set_tunnel(parts.hostname or "", parts.port or 443)
        return connection

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()  # honours SSL_CERT_FILE; grid sites name their CAs as below
                if os.path.isdir(os.environ.get("X509_CERT_DIR", "")):
                    self._tls.load_verify_locations(capath=os.environ["X509_CERT_DIR"])
            return self._tls


CONNECTIONS = Connections()


class Body:
    """What a request sends: can be read again from its start when a kept connection turns out to be closed."""

    length = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield exactly ``length`` bytes."""
        return iter(())


@contextlib.contextmanager
def exchange(
    method: str, url: str, headers: dict[str, str], body: Body | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and yield its answer; afterwards the connection is kept if it can be."""
    connection, reused = CONNECTIONS.take(url)
    try:
        try:
            answer = _send(connection, method, url, headers, body)
        except (ConnectionError, http.client.BadStatusLine):  # RemoteDisconnected is both
            if not reused:
                raise
            # The server closed it while it waited; that says nothing about this request.
            connection.close()
            connection, _ = CONNECTIONS.take(url, fresh=True)
            answer = _send(connection, method, url, headers, body)
        yield answer
        if not answer.isclosed() and (answer.length is None or answer.length <= LEFTOVER_LIMIT):
            answer.read(LEFTOVER_LIMIT)
        if answer.isclosed() and not answer.will_close and connection.sock is not None:
            CONNECTIONS.give(url, connection)
            connection = None  # type: ignore[assignment]
    finally:
        if connection is not None:
            connection.close()


def _send(
    connection: http.client.HTTPConnection, method: str, url: str, headers: dict[str, str], body: Body | None
) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    connection.putrequest(
        method, url if parts.scheme == "http" and proxy_for(url) else target, skip_accept_encoding=True
    )
    for name, value in headers.items():
        if name.lower() not in ("host", "content-length", "transfer-encoding", "accept-encoding"):
            connection.putheader(name, value)
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("User-Agent", USER_AGENT)
    if method in ("PUT", "POST"):
        connection.putheader("Content-Length", str(body.length if body else 0))
    small = b"".join(body.chunks()) if body is not None and body.length <= SMALL_BODY else None
    refused = None
    try:
        connection.endheaders(small)
        for chunk in body.chunks() if body is not None and small is None else ():
            connection.send(chunk)
    except (BrokenPipeError, ConnectionResetError) as error:
        refused = error  # a server that refuses does not read to the end; its answer may still be there
    try:
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise refused or error from None
    if refused is not None:
        answer.will_close = True
    return answer
