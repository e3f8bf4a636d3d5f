# SPDX-License-Identifier: Apache-2.0
"""Where results go: a bucket's presigned POST policy, or a directory behind a WebDAV door.

A store puts one file and returns its SHA-256, or begins a transfer whose attempts go on where the one before stopped.
Both may be used by many threads at a time.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import stat
import threading
import uuid
import zlib
from datetime import datetime, timezone
from typing import Any, BinaryIO, Callable, Iterator
from urllib.parse import quote, urlsplit

from airflow_provider_oscar.supervisor.errors import RefusedError, StageError, TransientError
from airflow_provider_oscar.supervisor.parts import S3_OBJECT_LIMIT, MultipartUpload, Region, goes_in_parts, longest_key
from airflow_provider_oscar.supervisor.ranges import CHUNK
from airflow_provider_oscar.supervisor.spec import plain_etag
from airflow_provider_oscar.supervisor.stage_in import new_digest
from airflow_provider_oscar.supervisor.text import encoded, quoted, say
from airflow_provider_oscar.supervisor.transport import (
    REDIRECTS,
    Body,
    exchange,
    is_transient,
    local_file,
    raise_for,
    redirected,
    refusal,
    refuse_page,
)

S3_KEY_LIMIT = 1024
#: What S3 takes in one POST or PUT.
S3_POST_LIMIT = 5 * 1024**3
WEBDAV_PATH_LIMIT = 4096


class FileBody(Body):
    """A file between two pieces of ours, with the checksums of what was read from it last.

    :param file: open at any position; read from its start.
    :param size: bytes that are promised.
    """

    def __init__(self, what: str, file: BinaryIO | Region, size: int, before: bytes = b"", after: bytes = b"") -> None:
        self.what, self._file, self.size = what, file, size
        self._before, self._after = before, after
        self.length = len(before) + size + len(after)
        self._reset()

    def _reset(self) -> None:
        self.sha256, self.md5, self.adler32 = new_digest("sha256"), new_digest("md5"), 1

    def chunks(self) -> Iterator[bytes]:
        self._reset()
        if self._before:
            yield self._before
        left = self.size
        with local_file(f"read {self.what}"):
            self._file.seek(0)
        while left:
            with local_file(f"read {self.what}"):
                chunk = self._file.read(min(CHUNK, left))
            if not chunk:
                raise StageError(f"{self.what} became shorter while it was staged out", reason="changed")
            left -= len(chunk)
            self.sha256.update(chunk)
            self.adler32 = zlib.adler32(chunk, self.adler32)
            if self.md5 is not None:
                self.md5.update(chunk)
            yield chunk
        if self._after:
            yield self._after


def open_regular(path: str) -> tuple[BinaryIO, os.stat_result]:
    """Open a file that must still be one; never a device or pipe put in its place, never through a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise OSError(0, "not a regular file")
    return file, status


class SingleUpload:
    """One file on its way in one request; nothing of an attempt is kept."""

    count = 0

    def __init__(self, put: Callable[[str, BinaryIO, int], str], key: str, size: int) -> None:
        self._put, self._key, self.size = put, key, size

    def attempt(self, file: BinaryIO) -> dict[str, object]:
        """Send it, and return the fields of the manifest that describe it."""
        return {"sha256": self._put(self._key, file, self.size)}


class S3Post:
    """Uploads through a presigned POST policy (multipart/form-data, streamed).

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
    """

    def __init__(self, target: dict[str, Any]) -> None:
        #: Whether the store's tags were seen to be MD5 sums; None as long as nobody knows.
        self._tags_are_md5: bool | None = None
        self._other_tags = 0
        self.renew(target)

    def renew(self, target: dict[str, Any]) -> None:
        """Go on with a fresh policy."""
        self.url, self.fields, self.prefix = target["url"], target["fields"], target["prefix"]
        self.key_limit = S3_KEY_LIMIT - len(encoded(self.prefix))
        policy = read_policy(self.fields.get("policy", ""))
        allowed = min([S3_POST_LIMIT, *_ranges(policy)])
        #: Larger files go in parts, unless the policy itself allows less than S3 does.
        self.size_limit = S3_OBJECT_LIMIT if allowed == S3_POST_LIMIT else allowed
        self.expires = _expiration(policy)
        self._takes_sha256 = _allows(policy, "x-amz-checksum-sha256")

    def transfer(self, key: str, size: int) -> SingleUpload | MultipartUpload:
        """Return a transfer of one file.

        :raises StageError: if its key leaves no room for the names of parts, and it is too large for one request.
        """
        if goes_in_parts(size):
            if len(encoded(key)) <= longest_key(self.key_limit):
                return MultipartUpload(self._put_part, key, size)
            if size > S3_POST_LIMIT:
                raise StageError(
                    f"output {quoted(key)}: its name is longer than the {longest_key(self.key_limit)} bytes that a "
                    "file of more than 5 GiB may have, which goes in parts",
                    reason="name-too-long",
                )
        return SingleUpload(self.put, key, size)

    def put(self, key: str, file: BinaryIO, size: int) -> str:
        """Upload one file and return its SHA-256.

        :raises TransientError: if it may work in another attempt.
        :raises StageError: if it will not.
        """
        return str(self._post(key, file, size).sha256.hexdigest())

    def _put_part(self, key: str, file: Region, size: int) -> bytes | None:
        body = self._post(key, file, size)
        return body.md5.digest() if body.md5 is not None and self._tags_are_md5 else None

    def _post(self, key: str, file: BinaryIO | Region, size: int) -> FileBody:
        what = f"output {quoted(key)}"
        boundary = uuid.uuid4().hex
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"'
        fields = {**self.fields, "key": self.prefix + key}
        if self._takes_sha256:
            fields["x-amz-checksum-algorithm"] = "SHA256"
            fields["x-amz-checksum-sha256"] = _sha256(what, file, size)
        head = "".join(f"{part.format(name)}\r\n\r\n{value}\r\n" for name, value in fields.items())
        # S3 replaces ${filename} within a key by the part's file name; this makes it replace it by itself.
        head += part.format("file") + '; filename="${filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = FileBody(what, file, size, head.encode("utf-8"), f"\r\n--{boundary}--\r\n".encode("ascii"))
        kind = {"Content-Type": "multipart/form-data; boundary=" + boundary}
        with exchange("POST", self.url, kind, body) as answer:
            if answer.status not in (200, 201, 204):
                raise_for(what, answer, in_xml=True)
            if answer.status == 200:
                refuse_page(answer, upload=True, s3=True)
            self._compare(what, answer, body)
            return body

    def _compare(self, what: str, answer: http.client.HTTPResponse, body: FileBody) -> None:
        """Compare the tag of what was stored with the MD5 of what was sent, where the one is the other."""
        tag = plain_etag(answer.getheader("ETag")).lower()
        hidden = answer.getheader("x-amz-server-side-encryption") == "aws:kms"
        if body.md5 is None or hidden or self._tags_are_md5 is False or not re.match(r"[0-9a-f]{32}\Z", tag):
            return
        if tag == body.md5.hexdigest():
            self._tags_are_md5 = True
            return
        self._other_tags += 1
        if self._tags_are_md5 or self._other_tags <= 2:
            raise TransientError(f"the store holds other content for {what} than was sent", reason="checksum")
        say("the entity tags of the output store are not the MD5 of its objects; they are not compared")
        self._tags_are_md5 = False


def read_policy(text: str) -> dict[str, Any]:
    """Return a POST policy's document; empty where it is not one we can read, which is the store's to judge."""
    try:
        policy = json.loads(base64.b64decode(text))
        return policy if isinstance(policy, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _conditions(policy: dict[str, object]) -> list[object]:
    found = policy.get("conditions")
    return found if isinstance(found, list) else []


def _ranges(policy: dict[str, object]) -> Iterator[int]:
    for each in _conditions(policy):
        if isinstance(each, list) and len(each) == 3 and each[0] == "content-length-range" and isinstance(each[2], int):
            yield each[2]


def _allows(policy: dict[str, object], field: str) -> bool:
    return any(
        isinstance(each, list) and len(each) == 3 and str(each[1]).lower() == "$" + field
        for each in _conditions(policy)
    )


def _expiration(policy: dict[str, object]) -> datetime | None:
    try:
        text = str(policy.get("expiration")).replace("Z", "+00:00")
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _sha256(what: str, file: BinaryIO | Region, size: int) -> str:
    body = FileBody(what, file, size)
    for _ in body.chunks():
        pass
    return base64.b64encode(body.sha256.digest()).decode("ascii")


class WebDAV:
    """Uploads by PUT; directories are made when the server asks for them."""

    key_limit = WEBDAV_PATH_LIMIT
    size_limit = float("inf")
    expires: datetime | None = None

    def __init__(self, target: dict[str, Any]) -> None:
        self._directories = threading.Lock()
        self.renew(target)

    def renew(self, target: dict[str, Any]) -> None:
        """Go on with a fresh token."""
        self.base, self.headers = target["url"].rstrip("/") + "/", target["headers"]

    def transfer(self, key: str, size: int) -> SingleUpload:
        """Return a transfer of one file; WebDAV has none that could be resumed."""
        return SingleUpload(self.put, key, size)

    def put(self, key: str, file: BinaryIO, size: int) -> str:
        """Upload one file and return its SHA-256.

        :raises TransientError: if it may work in another attempt.
        :raises StageError: if it will not.
        """
        what, url = f"output {quoted(key)}", self.base + quote(encoded(key), safe="/~")
        body = FileBody(what, file, size)
        remedies: list[Callable[[str], object]] = [self._make_parent, self._delete]
        # 409 is a missing directory or, on dCache with webdav.enable.overwrite=false, an earlier attempt's file.
        for remedy in remedies:
            if self._put(url, body):
                return str(body.sha256.hexdigest())
            remedy(url)
        if self._put(url, body):
            return str(body.sha256.hexdigest())
        raise refusal(what, 409, b"")

    def _put(self, url: str, body: FileBody) -> bool:
        """Return whether the file is stored; not, where the answer is 409."""
        headers = self.headers
        for _ in range(REDIRECTS + 1):
            with exchange("PUT", url, {**headers, "Want-Digest": "adler32"}, body) as answer:
                if answer.status in (200, 201, 204):
                    if answer.status == 200:
                        refuse_page(answer, upload=True)
                    _compare_digest(body, answer)
                    return True
                if answer.status == 409:
                    return False
                if answer.status == 404:  # our directory was there; a proxy says so as well while the door is away
                    raise RefusedError(f"the store answers 404 for {body.what}")
                if answer.status not in (307, 308):
                    raise_for(body.what, answer)
                url, headers = redirected(url, headers, answer.getheader("Location"))
        raise StageError(f"{body.what}: more than {REDIRECTS} redirects", reason="redirect")

    def _make_parent(self, url: str) -> None:
        with self._directories:
            self._make(url.rstrip("/").rpartition("/")[0] + "/")

    def _make(self, directory: str) -> None:
        """Create a directory and, where they are absent, those above it.

        Other refusals are left to the PUT that follows: a door may hide what is above our directory.
        """
        if self._ask("MKCOL", directory) == 409 and len(urlsplit(directory).path) > 1:
            self._make(directory.rstrip("/").rpartition("/")[0] + "/")
            self._ask("MKCOL", directory)

    def _delete(self, url: str) -> None:
        self._ask("DELETE", url)

    def _ask(self, method: str, url: str) -> int:
        with exchange(method, url, self.headers) as answer:
            if is_transient(answer.status):
                raise_for(method, answer)
            return answer.status


def _compare_digest(body: FileBody, answer: http.client.HTTPResponse) -> None:
    """Compare with the checksum of what was stored (RFC 3230), which dCache's doors and pools answer when asked."""
    found = re.search(r"(?:^|,)\s*adler32=([0-9a-f]{1,8})\b", answer.getheader("Digest") or "", re.IGNORECASE)
    if found is not None and int(found.group(1), 16) != body.adler32:
        raise TransientError(f"the store holds other content for {body.what} than was sent", reason="checksum")


def open_store(target: dict[str, object]) -> S3Post | WebDAV:
    """Return the store of a specification's output."""
    return S3Post(target) if target["kind"] == "s3-post" else WebDAV(target)
