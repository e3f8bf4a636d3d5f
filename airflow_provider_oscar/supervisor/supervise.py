# SPDX-License-Identifier: Apache-2.0
"""Stage in, run the user's command, stage out, write the manifest: ``supervise.py --job PATH``.

Runs on the compute side, in whatever image the user's command needs: Python 3.8 or later, standard
library, this one file. What it is told is the job specification (``model/job.schema.json``), what it tells
is the manifest (``model/manifest.schema.json``); both say their version. Unlike OSCAR's FaaS Supervisor,
whose variables it offers to the command, it ends with the command's exit code and reports every failure.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.client
import io
import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import uuid
import zlib
from datetime import datetime, timezone
from typing import Any, BinaryIO, Callable, Iterator, NoReturn
from urllib.parse import quote, unquote, urljoin, urlsplit

# Protocol: what both sides rely on.

#: Version of the manifest this program writes; it reads job specifications of the same major version.
PROTOCOL_VERSION = "1.0"
MARKER = "##airflow-oscar-manifest "
#: Log collectors cut longer lines.
MARKER_LIMIT = 60000
MANIFEST_NAME = "manifest.json"

EXIT_INPUT = 66  # EX_NOINPUT: the object is gone or another one
EXIT_IO = 74  # EX_IOERR: staging failed
EXIT_SPEC = 78  # EX_CONFIG: the job specification cannot be read
EXIT_TIMEOUT = 124  # as timeout(1); only where the command itself reported success
EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 126, 127  # as a shell has it

STAGE_IN, RUN, STAGE_OUT = "stage-in", "run", "stage-out"

#: Variables that carry us or our envelope; the command never sees them.
PRIVATE_PREFIXES = (b"OSCAR_SUPERVISOR", b"OSCARENV_")

REDIRECTS = 3
CHUNK = 1024 * 1024
SPEC_LIMIT = 4 * 1024 * 1024
METRICS_LIMIT = 1024 * 1024
S3_KEY_LIMIT = 1024
MESSAGE_LIMIT, QUOTE_LIMIT = 1000, 256
LONGEST_DELAY = 60.0


class Failure(Exception):
    """Nothing that trying again would mend; becomes the manifest's ``error`` and the exit code."""

    def __init__(self, message: str, code: int = EXIT_IO, delay: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.delay = delay


class Again(Failure):
    """This attempt failed, another one may not; ``delay`` is what the server asked for."""


class Interrupted(BaseException):
    """A signal asked to stop before the command was started."""


# Rules: no input or output here.


def shown(text: object) -> str:
    """Foreign text, fit for one line of a log."""
    raw = text if isinstance(text, str) else str(text)
    return ascii(raw[:QUOTE_LIMIT]) + ("..." if len(raw) > QUOTE_LIMIT else "")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def bad_spec(message: str) -> NoReturn:
    raise Failure(f"cannot use the job specification: {message}", EXIT_SPEC)


def read_spec(raw: bytes) -> dict[str, Any]:
    """Check a job specification as far as we depend on it; every field is there afterwards."""
    try:
        spec = json.loads(raw.decode("utf-8"))
        version = str(spec["version"])
        if not re.match(r"1\.[0-9]", version):
            bad_spec(
                f"this supervisor reads version 1.x, the job has {shown(version)}, which is newer or unknown; "
                "use the supervisor of the provider that submits the job"
            )
        if not isinstance(spec["command"], list) or not spec["command"]:
            bad_spec("the command must be a list of at least one string")
        return {
            "submission_id": str(spec["submission_id"]),
            "placement": str(spec.get("placement") or ""),
            "submitted_at": str(spec["submitted_at"]),
            "input": None if spec.get("input") is None else read_input(spec["input"]),
            "output": read_output(spec["output"]),
            "command": [str(word) for word in spec["command"]],
            "environment": texts(spec.get("environment"), r"\0"),
            "timeout": amount(spec.get("timeout")),
            "max_output_bytes": amount(spec.get("max_output_bytes")),
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        bad_spec(f"{type(error).__name__}: {shown(error)}")


def read_input(source: dict[str, Any]) -> dict[str, Any]:
    checksum = source.get("checksum")
    if checksum is not None and checksum["type"] not in ("adler32", "md5", "sha256"):
        bad_spec("the checksum is of type {}; expected adler32, md5 or sha256".format(shown(checksum["type"])))
    return {
        "uri": str(source["uri"]),
        "name": safe_name(str(source["name"])),
        "size": amount(source.get("size")),
        "etag": plain_etag(str(source.get("etag") or "")),
        "checksum": None if checksum is None else (str(checksum["type"]), str(checksum["value"]).lower()),
        "url": read_url(source["url"]),
        "headers": texts(source.get("headers")),
        "event": source.get("event") or {},
    }


def read_output(target: dict[str, Any]) -> dict[str, Any]:
    known = {"uri": str(target["uri"]), "kind": target["kind"], "url": read_url(target["url"])}
    if known["kind"] == "s3-post":
        return {**known, "fields": texts(target["fields"]), "prefix": str(target["prefix"])}
    if known["kind"] == "webdav":
        return {**known, "headers": texts(target.get("headers"))}
    bad_spec("cannot stage out to the kind {}; expected s3-post or webdav".format(shown(known["kind"])))


def amount(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
        bad_spec(f"{shown(value)} is not a number, or negative")
    return value


def texts(mapping: dict[str, str] | None, forbidden: str = r"[\0-\x1f\x7f]") -> dict[str, str]:
    """Headers and form fields go into protocols line by line; variables only into C strings."""
    found = {str(name): str(value) for name, value in (mapping or {}).items()}
    if any(re.search(forbidden, name + value) for name, value in found.items()):
        bad_spec("a variable, header or form field has characters that cannot be there")
    return found


def read_url(url: str) -> str:
    # http.client quotes a URL it refuses, signature included; so it must never have to.
    parts = urlsplit(url if re.match(r"[!-~]+\Z", url) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        bad_spec("a URL is not an absolute, percent-encoded http(s) URL")
    return url


def safe_name(name: str) -> str:
    """A file name below a directory of ours, whatever was asked for."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name.rstrip("/").rpartition("/")[2])[-200:]
    return ("_" + name[1:] if name[:1] in (".", "-") else name) or "input"


def plain_etag(text: str | None) -> str:
    text = (text or "").strip()
    return (text[2:] if text.startswith("W/") else text).strip('"')


def origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def redirected(url: str, headers: dict[str, str], location: str | None) -> tuple[str, dict[str, str]]:
    """Where a redirect leads and what may be told there: nothing, if it is another origin."""
    try:
        target = urljoin(url, location or "")
        new, old = origin(target), origin(url)
    except ValueError:
        target, new, old = "", ("", "", 0), ("", "", 0)
    if new[0] not in ("http", "https") or not new[1] or not re.match(r"[!-~]+\Z", target):
        raise Failure("the server redirected to something that is not an http(s) URL")
    if old[0] == "https" and new[0] == "http":
        raise Failure(f"the server redirected from https to http ({shown(new[1])}); refused")
    return target, (headers if new == old else {})


def refusal(what: str, status: int, body: bytes) -> Failure:
    said = " ({})".format(shown(body.decode("utf-8", "replace"))) if body else ""
    if status in (401, 403):
        return Failure(
            f"the store refuses {what} with {status}: the URL or token of the job has expired or does not cover it; "
            f"submit again, with a longer lifetime if the job waited long{said}"
        )
    if 300 <= status < 400:
        return Failure(
            f"the store redirects the upload of {what}, but the form's signature goes nowhere else: "
            "correct endpoint or region of the output connection"
        )
    return Failure(f"the store answers {status} for {what}{said}")


def is_passing(status: int) -> bool:
    return status in (408, 423, 425, 429) or (status >= 500 and status not in (501, 505, 507))


def object_key(uri: str) -> str:
    """What scripts for OSCAR's supervisor find in STORAGE_OBJECT_KEY: S3 key, or path of the file."""
    path = unquote(urlsplit(uri, allow_fragments=False).path, errors="surrogateescape")
    return path[1:] if uri.startswith("s3:") else path


def event_time(spec: dict[str, Any]) -> str:
    try:
        return str(spec["input"]["event"]["Records"][0]["eventTime"])
    except (KeyError, IndexError, TypeError):
        return str(spec["submitted_at"])


def command_environment(
    inherited: dict[bytes, bytes], spec: dict[str, Any], places: dict[str, str]
) -> dict[bytes, bytes]:
    """Variables of the command: those of the container, the user's, and ours over both.

    No URL, header or form field is among them: an outer supervisor's EVENT, which is our specification, goes.
    """
    source = spec["input"]
    ours = {
        "INPUT_FILE_PATH": "",
        **places,
        "JOB_UUID": spec["submission_id"],
        "STORAGE_OBJECT_KEY": object_key(source["uri"]) if source else "",
        "EVENT_TIME": event_time(spec) if source else "",
        "EVENT": json.dumps(source["event"], separators=(",", ":")) if source and source["event"] else "",
    }
    found = {name: value for name, value in inherited.items() if not name.startswith(PRIVATE_PREFIXES)}
    for name, value in {**spec["environment"], **ours}.items():
        found.pop(encoded(name), None)
        if value or name not in ours:
            found[encoded(name)] = encoded(value)
    return found


def encoded(text: str) -> bytes:
    # Not os.fsencode: the locale of a container says nothing about the user's values.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def key_problem(key: str, limit: int) -> str:
    """Why a file cannot be staged out under this key, or nothing."""
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if key == MANIFEST_NAME:
        return "the name is reserved for the manifest"
    return f"its name is longer than {limit} bytes" if length > limit else ""


def marker_line(manifest: dict[str, Any]) -> str:
    """The manifest as one line that always fits: what can grow is left out first, then clipped."""
    short = {**manifest, "outputs": [], "metrics": {}, "truncated": True}
    clipped = {name: clip(value) for name, value in short.items()}
    clipped["input"] = short["input"] and {name: clip(value) for name, value in short["input"].items()}
    lines = (MARKER + json.dumps(each, separators=(",", ":")) for each in (manifest, short, clipped))
    return next((line for line in lines if len(line) <= MARKER_LIMIT), "")


def clip(value: Any) -> Any:
    return value[:MESSAGE_LIMIT] if isinstance(value, str) else value


# Files and network.


def say(message: str) -> None:
    """One line for the people who read the log."""
    with contextlib.suppress(OSError, ValueError):
        print("airflow-oscar:", message, file=sys.stderr, flush=True)


def setting(name: str, default: float) -> float:
    """A number the pod may set, for instance OSCAR_SUPERVISOR_HTTP_TIMEOUT."""
    try:
        return float(os.environ.get("OSCAR_SUPERVISOR_" + name, ""))
    except ValueError:
        return default


def tell(manifest: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, ValueError):
        print("\n" + marker_line(manifest), flush=True)  # the command may have ended in the middle of a line


@contextlib.contextmanager
def local_file(what: str) -> Iterator[None]:
    """Tell a full disk from a broken connection: both are OSError, only one is worth another attempt."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot {what}: {error.strerror or type(error).__name__}") from error


def persist(what: str, attempt: Callable[[], Any]) -> Any:
    """Try until it works, cannot work, or has been tried often enough."""
    attempts, first = max(1, int(setting("ATTEMPTS", 6))), setting("BACKOFF", 1.0)
    number = 1
    while True:
        try:
            return attempt()
        except Again as error:
            reason = error
        except ssl.SSLCertVerificationError as error:
            raise Failure(
                f"{what}: the server's certificate is not trusted here ({error.verify_message}); "
                "set SSL_CERT_FILE or X509_CERT_DIR in the image"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = Again("{}{}".format(type(error).__name__, ": " + str(error.args[-1]) if error.args else ""))
        if number >= attempts:
            raise Failure(f"{what}: {reason} (gave up after {number} attempts)", reason.code)
        longest = min(first * 2.0 ** (number - 1), LONGEST_DELAY)
        delay = random.uniform(longest / 2, longest) if reason.delay is None else reason.delay
        say(f"{what}: {reason}; trying again in {delay:.1f} s")
        time.sleep(delay)
        number += 1


def proxy_for(url: str) -> str | None:
    """The proxy of the environment: compute nodes often have no other way out."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return proxy if not proxy or "://" in proxy else "http://" + proxy


def connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection, and what to write into the request line."""
    parts = urlsplit(url)
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    proxy = proxy_for(url)
    timeout = setting("HTTP_TIMEOUT", 60.0)
    _, host, port = origin(proxy or url)
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout), url if proxy else target
    context = ssl.create_default_context()  # honours SSL_CERT_FILE; grid sites name their CAs as below
    if os.path.isdir(os.environ.get("X509_CERT_DIR", "")):
        context.load_verify_locations(capath=os.environ["X509_CERT_DIR"])
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    if proxy:
        connection.set_tunnel(parts.hostname or "", parts.port or 443)
    return connection, target


@contextlib.contextmanager
def exchange(
    method: str, url: str, headers: dict[str, str], body: Iterator[bytes] | None = None, length: int = 0
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and yield its answer."""
    connection, target = connect(url)
    try:
        connection.putrequest(method, target)
        for name, value in headers.items():
            if name.lower() not in ("host", "content-length", "transfer-encoding", "accept-encoding"):
                connection.putheader(name, value)
        connection.putheader("User-Agent", "airflow-oscar-supervisor/" + PROTOCOL_VERSION)
        if method in ("PUT", "POST"):
            connection.putheader("Content-Length", str(length))
        connection.endheaders()
        refused = None
        try:
            for chunk in body or ():
                connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError) as error:
            refused = error  # a server that refuses does not read to the end; what it said may still be there
        try:
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise refused or error from None
        yield answer
    finally:
        connection.close()


def raise_for(what: str, answer: http.client.HTTPResponse) -> NoReturn:
    if is_passing(answer.status):
        asked = answer.getheader("Retry-After") or ""
        delay = min(float(asked), LONGEST_DELAY) if re.match(r"[0-9]{1,6}\Z", asked) else None
        raise Again(f"the server answers {answer.status}", delay=delay)
    body = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        body = answer.read(2 * QUOTE_LIMIT)
    raise refusal(what, answer.status, body)


def download(source: dict[str, Any], path: str) -> None:
    """Fetch the object once; the file is the object's, or an exception says why not."""
    what, url, headers = "object {}".format(shown(source["uri"])), source["url"], source["headers"]
    for _ in range(REDIRECTS + 1):
        with exchange("GET", url, headers) as answer:
            if answer.status in (301, 302, 303, 307, 308):
                url, headers = redirected(url, headers, answer.getheader("Location"))
                continue
            if answer.status in (404, 410):
                raise Failure(f"{what} vanished: the store answers {answer.status}", EXIT_INPUT)
            if answer.status != 200:
                raise_for(what, answer)
            check_identity(source, answer, what)
            receive(source, answer, path, what)
            return
    raise Failure(f"{what}: more than {REDIRECTS} redirects")


def check_identity(source: dict[str, Any], answer: http.client.HTTPResponse, what: str) -> None:
    """Refuse another version of the object before its first byte is read."""
    etag, old = plain_etag(answer.getheader("ETag")), source["etag"]
    if old and etag and etag != old:
        changed = f"its entity tag was {shown(old)} and is now {shown(etag)}"
    elif None not in (source["size"], answer.length) and answer.length != source["size"]:
        changed = "it had {} bytes and now has {}".format(source["size"], answer.length)
    else:
        return
    raise Failure(
        f"{what} was overwritten after it was seen: {changed}; the new version gets a run of its own", EXIT_INPUT
    )


def receive(source: dict[str, Any], answer: http.client.HTTPResponse, path: str, what: str) -> None:
    expected = source["size"] if answer.length is None else answer.length
    kind, wanted = source["checksum"] or ("adler32", "")
    # FIPS systems allow md5 only with a keyword that Python 3.8 does not know.
    harmless: Any = {"usedforsecurity": False} if sys.version_info >= (3, 9) else {}
    digest = None if kind == "adler32" else hashlib.new(kind, **harmless)
    count, adler = 0, 1
    with local_file("create the input file"):
        file = open(path, "wb")  # noqa: SIM115 (closed below; a broken connection must not count as a local error)
    with file:
        for chunk in iter(lambda: answer.read(CHUNK), b""):
            count += len(chunk)
            if expected is not None and count > expected:
                raise Failure(f"{what} is longer than the {expected} bytes it was seen with", EXIT_INPUT)
            adler = zlib.adler32(chunk, adler)
            if digest is not None:
                digest.update(chunk)
            with local_file("write the input file"):
                file.write(chunk)
        with local_file("write the input file"):
            file.flush()
    if expected is not None and count < expected:
        raise Again(f"the connection ended after {count} of {expected} bytes")
    seen = f"{adler:08x}" if digest is None else digest.hexdigest()
    if wanted and seen != wanted.rjust(8, "0"):
        raise Again(f"its {kind} checksum is {seen}, not {shown(wanted)}", EXIT_INPUT)


def file_chunks(file: BinaryIO, size: int, check: Any, what: str) -> Iterator[bytes]:
    """Exactly ``size`` bytes, counted into the checksum."""
    left = size
    while left:
        with local_file(f"read {what}"):
            chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise Failure(f"{what} became shorter while it was staged out")
        left -= len(chunk)
        check.update(chunk)
        yield chunk


class S3Post:
    """Uploads through a presigned POST policy (multipart/form-data, streamed)."""

    def __init__(self, target: dict[str, Any]) -> None:
        self.url, self.fields, self.prefix = target["url"], target["fields"], target["prefix"]
        self.key_limit = S3_KEY_LIMIT - len(encoded(self.prefix))

    def put(self, key: str, file: BinaryIO, size: int) -> str:
        what = f"output {shown(key)}"
        boundary = uuid.uuid4().hex
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"'
        fields = {**self.fields, "key": self.prefix + key}
        head = "".join(f"{part.format(name)}\r\n\r\n{value}\r\n" for name, value in fields.items())
        # S3 replaces ${filename} within a key by the part's file name; this makes it replace it by itself.
        head += part.format("file") + '; filename="${filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        before, after = head.encode("utf-8"), f"\r\n--{boundary}--\r\n".encode("ascii")
        check = hashlib.sha256()
        body = itertools.chain([before], file_chunks(file, size, check, what), [after])
        kind = {"Content-Type": "multipart/form-data; boundary=" + boundary}
        with exchange("POST", self.url, kind, body, len(before) + size + len(after)) as answer:
            if answer.status in (200, 201, 204):
                answer.read()
                return check.hexdigest()
            raise_for(what, answer)


class WebDAV:
    """Uploads by PUT; directories are made when the server asks for them."""

    key_limit = 4096

    def __init__(self, target: dict[str, Any]) -> None:
        self.base = target["url"].rstrip("/") + "/"
        self.headers = target["headers"]

    def put(self, key: str, file: BinaryIO, size: int) -> str:
        what, url = f"output {shown(key)}", self.base + quote(encoded(key), safe="/~")
        # 409 is a missing directory or, on dCache with webdav.enable.overwrite=false, an earlier attempt's file.
        for remedy in (self._make_directory_of, functools.partial(self._ask, "DELETE")):
            value = self._put(url, file, size, what)
            if value:
                return value
            remedy(url)
        value = self._put(url, file, size, what)
        if value:
            return value
        raise refusal(what, 409, b"")

    def _put(self, url: str, file: BinaryIO, size: int, what: str) -> str:
        """The checksum of what was stored, or nothing where the answer is 409."""
        headers = self.headers
        for _ in range(REDIRECTS + 1):
            check = hashlib.sha256()
            with local_file(f"read {what}"):
                file.seek(0)
            with exchange("PUT", url, headers, file_chunks(file, size, check, what), size) as answer:
                if answer.status in (200, 201, 204):
                    answer.read()
                    return str(check.hexdigest())
                if answer.status == 409:
                    return ""
                if answer.status not in (307, 308):
                    raise_for(what, answer)
                url, headers = redirected(url, headers, answer.getheader("Location"))
        raise Failure(f"{what}: more than {REDIRECTS} redirects")

    def _make_directory_of(self, url: str) -> None:
        """Create the directory above a URL and, where they are absent, those above it.

        Other refusals are left to the PUT that follows: a door may hide what is above our directory.
        """
        above = url.rstrip("/").rpartition("/")[0] + "/"
        if self._ask("MKCOL", above) == 409 and len(urlsplit(above).path) > 1:
            self._make_directory_of(above)
            self._ask("MKCOL", above)

    def _ask(self, method: str, url: str) -> int:
        with exchange(method, url, self.headers) as answer:
            if is_passing(answer.status):
                raise_for(method, answer)
            return answer.status


def find_outputs(root: str, limit: int) -> tuple[list[tuple[str, str]], list[str]]:
    """(key, path) of every file to stage out, in order of key, and what is wrong with the others."""
    files: list[tuple[str, str]] = []
    unreadable: list[OSError] = []
    real_root = os.path.realpath(root)
    problems = []
    for folder, folders, names in os.walk(root, onerror=unreadable.append):
        for name in names + [each for each in folders if os.path.islink(os.path.join(folder, each))]:
            path = os.path.join(folder, name)
            key = os.path.relpath(path, root).replace(os.sep, "/")
            real = os.path.realpath(path)
            problem = key_problem(key, limit)
            if not problem and os.path.commonpath([real, real_root]) != real_root:
                problem = "it is a symbolic link that leads out of TMP_OUTPUT_DIR"
            elif not problem and not os.path.isfile(real):
                if os.path.isdir(real):
                    continue  # a link to a directory whose files are staged out under their own names
                problem = "it is not a regular file"
            if problem:
                problems.append(f"{shown(key)} was not staged out: {problem}")
            else:
                files.append((key, real))
    problems += [f"a directory below TMP_OUTPUT_DIR cannot be read: {error.strerror}" for error in unreadable]
    return sorted(files), sorted(problems)


def open_regular(path: str) -> tuple[BinaryIO, int]:
    """Open a file that must still be one; never a device or pipe put in its place, never through a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise OSError(0, "not a regular file")
    return file, status.st_size


def read_metrics(path: str) -> dict[str, Any]:
    """What the command measured; anything but one small JSON object is said to be ignored."""
    if not os.path.lexists(path):
        return {}
    try:
        with open_regular(path)[0] as file:
            return dict(json.loads(file.read(METRICS_LIMIT).decode("utf-8"), parse_constant=str))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        say(f"SUPERVISOR_METRICS_FILE is ignored ({type(error).__name__}); expected one JSON object, at most 1 MiB")
        return {}


# The user's command.


class Signals:
    """What arrives while we work: kept for the loop that forwards it, or an end to the staging in.

    While outputs go out nothing stops us; the platform will kill us if it must.
    """

    FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    STOP = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.stage = STAGE_IN
        self.received: list[int] = []
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        # A signal writes into the pipe, so that the loop wakes at once; SIGCHLD needs a handler to count.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self.FORWARDED:
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _handle(self, number: int, frame: object) -> None:
        if self.stage == STAGE_IN and number in self.STOP:
            self.stage = STAGE_OUT
            raise Interrupted(signal.Signals(number).name, 128 + number)
        if self.stage == RUN:
            self.received.append(number)
        elif number in self.STOP:
            say(f"{signal.Signals(number).name} received while staging out; finishing that first")

    def wait(self, seconds: float) -> None:
        """Sleep until a signal or a child's end, at most ``seconds``."""
        ready, _, _ = select.select([self._reader], [], [], min(max(seconds, 0.0), 60.0))
        with contextlib.suppress(BlockingIOError):
            while ready and os.read(self._reader, 1024):
                pass


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def start(command: list[str], environment: dict[bytes, bytes]) -> subprocess.Popen[bytes]:
    try:
        words = [encoded(word) for word in command]
        # A session of its own is a process group of its own, which signals reach as a whole.
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    except FileNotFoundError as error:
        what = f"command not found: {shown(command[0])}, or the interpreter its first line names"
        raise Failure(f"{what}; check the image and the command of the task", EXIT_NOT_FOUND) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Failure(f"cannot run {shown(command[0])}: {reason}", EXIT_CANNOT_RUN) from error


def run_command(
    command: list[str], environment: dict[bytes, bytes], timeout: float | None, signals: Signals
) -> tuple[int, Failure | None]:
    """Run to the end; its exit code, and what stopped it if it was stopped. Its output goes where ours goes."""
    process = start(command, environment)
    never, grace, stopped = float("inf"), setting("KILL_GRACE", 10.0), None
    deadline, kill_at = time.monotonic() + timeout if timeout else never, never
    while process.poll() is None:
        while signals.received:
            number = signals.received.pop(0)
            say(f"forwarding {signal.Signals(number).name}")
            signal_group(process.pid, number)
            if number in Signals.STOP and stopped is None:
                stopped = Failure(f"cancelled by {signal.Signals(number).name}", 128 + number)
                deadline, kill_at = never, time.monotonic() + grace
        if time.monotonic() >= deadline:
            stopped = Failure(f"the command ran longer than its timeout of {timeout:g} s", EXIT_TIMEOUT)
            deadline, kill_at = never, time.monotonic() + grace
            signal_group(process.pid, signal.SIGTERM)
        if time.monotonic() >= kill_at:
            say(f"the command did not stop within {grace:g} s; killing it")
            kill_at = never
            signal_group(process.pid, signal.SIGKILL)
        signals.wait(min(deadline, kill_at) - time.monotonic())
    signal_group(process.pid, signal.SIGKILL)  # what it left in the background must not write outputs any more
    code = process.returncode
    return (128 - code if code < 0 else code), stopped


# The job, stage by stage.


class Job:
    """One job on its way through the stages, and the manifest that grows with it."""

    def __init__(self, spec: dict[str, Any], work: str, signals: Signals) -> None:
        self.spec, self.signals = spec, signals
        self.input_dir = os.path.join(work, "input")
        self.output_dir = os.path.join(work, "output")
        self.metrics_path = os.path.join(work, "metrics.json")
        for folder in (self.input_dir, self.output_dir):
            os.mkdir(folder, 0o700)
        self.store: Any = S3Post(spec["output"]) if spec["output"]["kind"] == "s3-post" else WebDAV(spec["output"])
        self.manifest = first_manifest(spec)

    def perform(self) -> int:
        """Do all of it; whatever happens, the manifest and its marker line come last."""
        self._attempt(self._stage_in, self._run)
        self.signals.stage = STAGE_OUT
        with self._phase(STAGE_OUT):
            self._attempt(self._stage_out)
        self._attempt(self._publish)
        tell(self.manifest)
        return int(self.manifest["exit_code"])

    def _attempt(self, *steps: Callable[[], None]) -> None:
        """Take steps until one fails; why goes into the manifest."""
        try:
            for step in steps:
                step()
        except Interrupted as signalled:
            name, code = signalled.args
            self._fail(Failure(f"cancelled by {name} before the command ran", code), STAGE_IN)
        except Failure as failure:
            self._fail(failure, self.signals.stage)
        except Exception as error:  # noqa: BLE001 (an error of ours must still reach the manifest)
            traceback.print_exc()
            self._fail(Failure(f"internal error of the supervisor: {type(error).__name__}"), self.signals.stage)

    def _fail(self, failure: Failure, stage: str) -> None:
        """Note what went wrong first; a command's own exit code stays."""
        say(f"{stage} failed: {failure}")
        self.manifest["exit_code"] = self.manifest["exit_code"] or failure.code
        if self.manifest["error"] is None:
            self.manifest["error"] = {"stage": stage, "message": clip(str(failure))}

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = now()
        try:
            yield
        finally:
            self.manifest["phases"][name] = {"start": begun, "end": now()}

    def _stage_in(self) -> None:
        source = self.spec["input"]
        if source is None:
            return
        path = os.path.join(self.input_dir, source["name"])
        with self._phase(STAGE_IN):
            persist("stage-in of {}".format(shown(source["uri"])), lambda: download(source, path))
        self.manifest["input"]["size"] = os.path.getsize(path)
        say("staged in {}".format(shown(source["uri"])))

    def _run(self) -> None:
        places = {"TMP_INPUT_DIR": self.input_dir, "TMP_OUTPUT_DIR": self.output_dir}
        places["SUPERVISOR_METRICS_FILE"] = self.metrics_path
        if self.spec["input"] is not None:
            places["INPUT_FILE_PATH"] = os.path.join(self.input_dir, self.spec["input"]["name"])
        environment = command_environment(dict(os.environb), self.spec, places)
        self.signals.stage = RUN
        with self._phase(RUN):
            code, stopped = run_command(self.spec["command"], environment, self.spec["timeout"], self.signals)
        self.manifest["exit_code"] = code
        if stopped is not None:
            self._fail(stopped, RUN)
        say(f"the command ended with exit code {code}")

    def _stage_out(self) -> None:
        metrics = self.manifest["metrics"] = read_metrics(self.metrics_path)
        self.manifest["device"] = str(metrics["device"]) if metrics.get("device") is not None else None
        files, problems = find_outputs(self.output_dir, self.store.key_limit)
        left = float("inf") if self.spec["max_output_bytes"] is None else self.spec["max_output_bytes"]
        for key, path in files:
            size = os.path.getsize(path)
            if size > left:
                problems.append(f"{shown(key)} ({size} bytes) was not staged out: {left} bytes are left to the job")
            else:
                left -= size
                self._upload(key, path)
        if problems:
            raise Failure("; ".join(problems[:5]) + (" and more" if len(problems) > 5 else ""))

    def _upload(self, key: str, path: str) -> None:
        def attempt() -> dict[str, Any]:
            with local_file(f"read output {shown(key)}"):
                file, size = open_regular(path)
            with file:
                return {"key": key, "size": size, "sha256": self.store.put(key, file, size)}

        self.manifest["outputs"].append(persist(f"stage-out of {shown(key)}", attempt))
        say(f"staged out {shown(key)}")

    def _publish(self) -> None:
        data = json.dumps(self.manifest, indent=1).encode("ascii")
        persist("stage-out of the manifest", lambda: self.store.put(MANIFEST_NAME, io.BytesIO(data), len(data)))


def first_manifest(spec: dict[str, Any]) -> dict[str, Any]:
    source = spec["input"]
    return {
        "version": PROTOCOL_VERSION,
        "submission_id": spec["submission_id"],
        "placement": str(spec["placement"]),
        "input": None if source is None else {"uri": source["uri"], "etag": source["etag"], "size": source["size"]},
        "output_uri": spec["output"]["uri"],
        "outputs": [],
        "exit_code": 0,
        "error": None,
        "phases": {"queued": {"start": spec["submitted_at"], "end": now()}},
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID") or None,
        "device": None,
        "metrics": {},
    }


# Where it starts.


def below_sandbox(path: str) -> str:
    """Where a mount appears in a process container: below $CONTAINER_SANDBOX_MOUNT_POINT, if it is there."""
    sandbox = os.environ.get("CONTAINER_SANDBOX_MOUNT_POINT", "").rstrip("/")
    return sandbox + path if sandbox and path.startswith("/") and os.path.exists(sandbox + path) else path


def work_directory() -> str:
    """A fresh directory on the volume the pod gives us, else where temporary files go."""
    volume = below_sandbox(os.environ.get("OSCAR_SUPERVISOR_WORKDIR", ""))
    usable = volume and os.access(volume, os.W_OK | os.X_OK)
    return tempfile.mkdtemp(prefix="airflow-oscar-", dir=volume if usable else None)


def load_spec(path: str) -> dict[str, Any]:
    try:
        with open(below_sandbox(path), "rb") as file:
            return read_spec(file.read(SPEC_LIMIT))
    except OSError as error:
        bad_spec(f"{shown(path)} cannot be read: {error.strerror}")


def refuse(failure: Failure) -> int:
    """A job that cannot begin names no place for a manifest; the log has to do."""
    say(str(failure))
    nothing = {"submission_id": "", "placement": "", "input": None, "output": {"uri": ""}, "submitted_at": now()}
    error = {"stage": STAGE_IN, "message": clip(str(failure))}
    tell({**first_manifest(nothing), "exit_code": failure.code, "error": error})
    return failure.code


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="supervise.py", description="Run one job of airflow-provider-oscar.")
    parser.add_argument("--job", required=True, metavar="PATH", help="the job specification, a JSON file")
    path = parser.parse_args(arguments).job
    signals, work = Signals(), ""
    try:
        spec = load_spec(path)
        work = work_directory()
        return Job(spec, work, signals).perform()
    except Failure as failure:
        return refuse(failure)
    except OSError as error:
        return refuse(Failure(f"cannot make a work directory: {error.strerror}"))
    except Interrupted as signalled:
        return refuse(Failure(f"cancelled by {signalled.args[0]}", signalled.args[1]))
    finally:
        signals.stage = STAGE_OUT
        if work:
            shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(ChildProcessError):  # as process 1 of a container we inherit the orphans
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


if __name__ == "__main__":
    sys.exit(main())
