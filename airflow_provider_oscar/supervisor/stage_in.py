# SPDX-License-Identifier: Apache-2.0
"""Staging in: the object that was seen, whole and verified, or an error that says why not."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import zlib
from typing import Any, NoReturn

from airflow_provider_oscar.supervisor.errors import EXIT_ACCESS, EXIT_INPUT, RefusedError, StageError, TransientError
from airflow_provider_oscar.supervisor.parallel import in_parallel
from airflow_provider_oscar.supervisor.spec import plain_etag
from airflow_provider_oscar.supervisor.text import quoted, say, setting
from airflow_provider_oscar.supervisor.transport import (
    REDIRECTS,
    exchange,
    is_transient,
    local_file,
    persist,
    raise_for,
    redirected,
)

CHUNK = 1024 * 1024
#: Headers by which two polls at a door are compared.
DOOR_VERSION = ("ETag", "Last-Modified", "Content-Length")


def new_digest(kind: str) -> Any:
    """Return a hash object; None where this system has none of the kind."""
    # FIPS systems allow md5 only with a keyword that Python 3.8 does not know.
    harmless: Any = {"usedforsecurity": False} if sys.version_info >= (3, 9) else {}
    try:
        return hashlib.new(kind, **harmless)
    except ValueError:
        return None


def stage_in(sources: list[dict[str, object]], folder: str) -> list[int]:
    """Fetch all objects below a directory, and return their sizes.

    :raises StageError: of the first that cannot be fetched.
    """

    def fetch(source: dict[str, Any]) -> int:
        path = os.path.join(folder, source["name"])
        with local_file("create the input directory"):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        download = Download(source, path)
        persist("stage-in of {}".format(quoted(source["uri"])), download.attempt, lambda: download.count)
        return download.count

    results = in_parallel(fetch, sources, int(setting("TRANSFERS", 16)))
    for result in results:
        if isinstance(result, Exception):
            raise result
    for source in sources[:20]:
        say("staged in {}".format(quoted(source["uri"])))
    if len(sources) > 20:
        say(f"staged in {len(sources)} objects")
    return [int(size) for size in results]


class Download:
    """One object on its way; an attempt goes on where the one before it was cut off."""

    def __init__(self, source: dict[str, Any], path: str) -> None:
        self.source, self.path = source, path
        self.what = "object {}".format(quoted(source["uri"]))
        self._wrong = ""
        self._seen_at_door: tuple[str, ...] | None = None
        self._restart()

    def _restart(self) -> None:
        kind = (self.source["checksum"] or ("adler32", ""))[0]
        self.count, self._adler, self._etag, self._whole = 0, 1, "", False
        self._digest = None if kind == "adler32" else new_digest(kind)
        self._md5 = new_digest("md5") if re.match(r"[0-9a-f]{32}\Z", self._tag_to_compare()) else None

    def _tag_to_compare(self) -> str:
        """Return the tag of an S3 object, where it may be the MD5 of its content."""
        wanted = self.source["uri"].startswith("s3:") and setting("VERIFY_ETAG", 1)
        return self.source["etag"].lower() if wanted else ""

    def attempt(self) -> None:
        """Fetch what is missing; the file is the object's afterwards, or an exception says why not."""
        self._look_at_door()
        if not self._whole:
            self._fetch()
            self._whole = True
        self._look_at_door()
        self._verify()

    def _fetch(self) -> None:
        url, headers = self.source["url"], self.source["headers"]
        for hops in range(REDIRECTS + 1):
            asked = {**headers, "Range": f"bytes={self.count}-"} if self.count else headers
            with exchange("GET", url, asked) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url, headers = redirected(url, headers, answer.getheader("Location"))
                    continue
                self._take(answer, hops > 0)
                return
        raise StageError(f"{self.what}: more than {REDIRECTS} redirects", reason="redirect")

    def _look_at_door(self) -> None:
        """Refuse another version than the one that was seen, before and after its bytes were read.

        A door answers for the file, and sends to a pool for its bytes: dCache's pools send no entity tag, so an
        overwritten file of the same size would pass for damage, or, without a checksum, for the old one. Other stores
        send the tag with the bytes, and a signed URL of theirs is good for them alone.
        """
        if not self.source["uri"].startswith("dcache:"):
            return
        with exchange("HEAD", self.source["url"], self.source["headers"]) as answer:
            if answer.status in (404, 410):
                self._vanished(answer.status)
            if is_transient(answer.status):
                raise_for(self.what, answer)
            if answer.status != 200:
                return  # a door that does not answer this; the checksum has to do
            now = tuple(plain_etag(answer.getheader(name)) for name in DOOR_VERSION)
        etag, old = now[0], self.source["etag"]
        if old and etag and etag != old:
            self._changed(f"its entity tag was {quoted(old)} and is now {quoted(etag)}")
        if self._seen_at_door not in (None, now):
            self._changed("the door shows another one than before", "while it was read")
        self._seen_at_door = now

    def _vanished(self, status: int) -> NoReturn:
        raise RefusedError(f"{self.what} vanished: the store answers {status}", EXIT_INPUT, "input-vanished")

    def _changed(self, how: str, when: str = "after it was seen") -> NoReturn:
        raise StageError(
            f"{self.what} was overwritten {when}: {how}; the new version gets a run of its own",
            EXIT_INPUT,
            "input-changed",
        )

    def _take(self, answer: http.client.HTTPResponse, elsewhere: bool) -> None:
        """Take the bytes of an answer.

        :param elsewhere: it is not the store's own, but of where it sent us.
        """
        if answer.status in (404, 410):
            if elsewhere:  # a pool forgets a transfer; whether the file is there, the door knows
                raise TransientError(f"the server we were sent to answers {answer.status}")
            self._vanished(answer.status)
        if answer.status == 416:
            self._restart()
            raise TransientError("the server has no more bytes; starting over")
        if answer.status not in (200, 206):
            self._refused(answer)
        total = self._total(answer)
        self._check_identity(answer, total)
        self._receive(answer, self.source["size"] if total is None else total)

    def _refused(self, answer: http.client.HTTPResponse) -> None:
        try:
            raise_for(self.what, answer)
        except StageError as error:
            # Nothing is computed yet: a new submission brings new URLs and costs little.
            error.permanent = error.permanent and error.code != EXIT_ACCESS
            raise

    def _total(self, answer: http.client.HTTPResponse) -> int | None:
        """Return the length of the whole object, and start over where the server sends it from its start."""
        if answer.status == 200:
            self._restart()
            return answer.length
        part = re.match(r"bytes ([0-9]+)-[0-9]+/([0-9]+)\Z", answer.getheader("Content-Range") or "")
        if part is None or int(part.group(1)) != self.count:
            self._restart()
            raise TransientError("the server sent another part than the one that is missing")
        return int(part.group(2))

    def _check_identity(self, answer: http.client.HTTPResponse, total: int | None) -> None:
        """Refuse another version of the object before its first byte is read."""
        etag, old = plain_etag(answer.getheader("ETag")), self._etag or self.source["etag"]
        if old and etag and etag != old:
            changed = f"its entity tag was {quoted(old)} and is now {quoted(etag)}"
        elif None not in (self.source["size"], total) and total != self.source["size"]:
            changed = "it had {} bytes and now has {}".format(self.source["size"], total)
        else:
            self._etag = etag
            if answer.getheader("x-amz-server-side-encryption") == "aws:kms" or answer.getheader(
                "x-amz-server-side-encryption-customer-algorithm"
            ):
                self._md5 = None  # the tag of an encrypted object is not the MD5 of its content
            return
        self._changed(changed)

    def _receive(self, answer: http.client.HTTPResponse, expected: int | None) -> None:
        with local_file("create the input file"):
            file = open(self.path, "r+b" if self.count else "wb")  # noqa: SIM115 (closed below; a broken connection must not count as a local error)
        with file:
            file.seek(self.count)
            for chunk in iter(lambda: answer.read(CHUNK), b""):
                if expected is not None and self.count + len(chunk) > expected:
                    raise StageError(
                        f"{self.what} is longer than the {expected} bytes it was seen with", EXIT_INPUT, "input-changed"
                    )
                with local_file("write the input file"):
                    file.write(chunk)
                    file.flush()
                self._count(chunk)
        if expected is not None and self.count < expected:
            raise TransientError(f"the connection ended after {self.count} of {expected} bytes")

    def _count(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self._adler = zlib.adler32(chunk, self._adler)
        for digest in (self._digest, self._md5):
            if digest is not None:
                digest.update(chunk)

    def _verify(self) -> None:
        kind, wanted = self.source["checksum"] or ("adler32", "")
        seen = f"{self._adler:08x}" if self._digest is None else self._digest.hexdigest()
        if self._digest is None and kind != "adler32":
            wanted = ""
        if wanted and seen != wanted.rjust(8, "0"):
            self._mismatch(f"its {kind} checksum is {seen}, not {quoted(wanted)}", seen)
        if self._md5 is not None and self._md5.hexdigest() != self._tag_to_compare():
            seen = self._md5.hexdigest()
            self._mismatch(f"its MD5 is {seen}, its entity tag {quoted(self.source['etag'])}", seen)

    def _mismatch(self, problem: str, seen: str) -> None:
        """Fetch it again; the same wrong content twice was not damaged on its way, and stays what it is."""
        self._restart()
        if seen == self._wrong:
            raise StageError(
                f"{self.what} is not the one that was seen: {problem}; it was overwritten or damaged in the store",
                EXIT_INPUT,
                "checksum",
            )
        self._wrong = seen
        raise TransientError(problem, EXIT_INPUT, "checksum")
