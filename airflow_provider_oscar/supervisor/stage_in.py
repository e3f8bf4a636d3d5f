# SPDX-License-Identifier: Apache-2.0
"""Staging in: the object that was seen, whole and verified, or an error that says why not."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import threading
from typing import Any, NoReturn

from airflow_provider_oscar.supervisor.errors import EXIT_ACCESS, EXIT_INPUT, RefusedError, StageError, TransientError
from airflow_provider_oscar.supervisor.parallel import TRANSFERS, in_parallel
from airflow_provider_oscar.supervisor.ranges import CHUNK, CREW, Adler32, ByteRange, Digests, ranges_of
from airflow_provider_oscar.supervisor.spec import plain_etag
from airflow_provider_oscar.supervisor.text import quoted, say, setting
from airflow_provider_oscar.supervisor.transport import (
    REDIRECTS,
    exchange,
    is_transient,
    local_file,
    persist,
    raise_for,
    read_start,
    redirected,
    refuse_page,
    require_xml,
)

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

    transfers = int(setting("TRANSFERS", TRANSFERS))
    crew = max(1, min(CREW, transfers // max(len(sources), 1)))

    def fetch(source: dict[str, Any]) -> int:
        path = os.path.join(folder, source["name"])
        with local_file("create the input directory"):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        download = Download(source, path, crew)
        persist("stage-in of {}".format(quoted(source["uri"])), download.attempt, lambda: download.count)
        return download.count

    results = in_parallel(fetch, sources, transfers)
    for result in results:
        if isinstance(result, Exception):
            raise result
    for source in sources[:20]:
        say("staged in {}".format(quoted(source["uri"])))
    if len(sources) > 20:
        say(f"staged in {len(sources)} objects")
    return [int(size) for size in results]


#: The gravity of an error that no other attempt changes.
DECIDES = 0


class StartOverError(TransientError):
    """What came cannot be gone on with."""


class StoppedError(Exception):
    """Another range failed, and this one waits for the next attempt."""


class Download:
    """One object on its way; an attempt goes on where the one before it was cut off.

    :param crew: how many ranges of it may be on their way at a time.
    """

    def __init__(self, source: dict[str, Any], path: str, crew: int) -> None:
        self.source, self.path = source, path
        self.what = "object {}".format(quoted(source["uri"]))
        self._crew = crew
        self._wrong = ""
        self._seen_at_door: tuple[str, ...] | None = None
        self._lock = threading.Lock()
        #: Begin no other range; go on with none.
        self._pause, self._end = threading.Event(), threading.Event()
        self._restart()

    def _restart(self) -> None:
        kind = (self.source["checksum"] or ("", ""))[0]
        self._ranges = ranges_of(self.source["size"] if self._crew > 1 else None)
        self._etag, self._whole = "", False
        self._digest = Adler32() if kind == "adler32" else new_digest(kind) if kind else None
        self._md5 = new_digest("md5") if re.match(r"[0-9a-f]{32}\Z", self._tag_to_compare()) else None
        digests = [digest for digest in (self._digest, self._md5) if digest is not None]
        self._digests = Digests(self.path, self._ranges, digests)

    @property
    def count(self) -> int:
        """Bytes that are there."""
        return sum(each.at - each.start for each in self._ranges)

    def _tag_to_compare(self) -> str:
        """Return the tag of an S3 object, where it may be the MD5 of its content."""
        wanted = self.source["uri"].startswith("s3:") and setting("VERIFY_ETAG", 1)
        return self.source["etag"].lower() if wanted else ""

    def attempt(self) -> None:
        """Fetch what is missing; the file is the object's afterwards, or an exception says why not."""
        self._look_at_door()
        if not self._whole:
            self._fetch_all()
            self._whole = True
        self._look_at_door()
        self._verify()

    def _fetch_all(self) -> None:
        """Fetch the ranges that are missing.

        Where one fails, those that are on their way arrive, and no other is begun; the gravest failure is raised.
        """
        if not self.count:
            with local_file("create the input file"):
                open(self.path, "wb").close()
        self._pause.clear()
        missing = [each for each in self._ranges if each.missing]
        results = in_parallel(self._fetch_or_stop, missing, self._crew)
        failed = [each for each in results if isinstance(each, Exception) and not isinstance(each, StoppedError)]
        if any(isinstance(each, StartOverError) for each in failed):
            self._crew = 1  # whatever such a server does to ranges, it can send the whole
            self._restart()
        if failed:
            raise min(failed, key=_gravity)
        self._digests.finish()

    def _fetch_or_stop(self, part: ByteRange) -> None:
        if self._pause.is_set():
            raise StoppedError
        try:
            self._fetch(part)
        except Exception as error:
            self._pause.set()
            if _gravity(error) == DECIDES:
                self._end.set()
            raise

    def _fetch(self, part: ByteRange) -> None:
        url, headers = self.source["url"], self.source["headers"]
        for hops in range(REDIRECTS + 1):
            with exchange("GET", url, {**headers, **part.header()}) as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    url, headers = redirected(url, headers, answer.getheader("Location"))
                    continue
                self._take(answer, part, hops > 0)
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
            refuse_page(answer)
            now = tuple(plain_etag(answer.getheader(name)) for name in DOOR_VERSION)
        etag, old = now[0], self.source["etag"]
        if old and etag and etag != old:
            self._changed(f"its entity tag was {quoted(old)} and is now {quoted(etag)}")
        if self._seen_at_door not in (None, now):
            self._changed("the door shows another one than before", "while it was read")
        self._seen_at_door = now

    def _vanished(self, status: int) -> NoReturn:
        raise RefusedError(f"{self.what} vanished: the store answers {status}", EXIT_INPUT, "input-vanished")

    def _absent(self, answer: http.client.HTTPResponse) -> NoReturn:
        if self.source["uri"].startswith("s3:"):
            require_xml(answer.status, read_start(answer))
        self._vanished(answer.status)

    def _changed(self, how: str, when: str = "after it was seen") -> NoReturn:
        raise StageError(
            f"{self.what} was overwritten {when}: {how}; the new version gets a run of its own",
            EXIT_INPUT,
            "input-changed",
        )

    def _take(self, answer: http.client.HTTPResponse, part: ByteRange, elsewhere: bool) -> None:
        """Take the bytes of an answer.

        :param elsewhere: it is not the store's own, but of where it sent us.
        """
        if answer.status in (404, 410):
            if elsewhere:  # a pool forgets a transfer; whether the file is there, the door knows
                raise TransientError(f"the server we were sent to answers {answer.status}")
            self._absent(answer)
        if answer.status == 416:
            raise StartOverError("the server has no more bytes; starting over")
        if answer.status not in (200, 206):
            self._refused(answer)
        refuse_page(answer, s3=self.source["uri"].startswith("s3:"))
        if answer.status == 200 and part.end is not None:
            raise StartOverError("the server sends whole objects only; fetching it as one")
        if answer.status == 200 and part.at:
            self._restart()
            (part,) = self._ranges
        total = answer.length if answer.status == 200 else self._total(answer, part)
        self._check_identity(answer, total)
        size = self.source["size"] if total is None else total
        self._receive(answer, part, size if part.end is None else part.end)

    def _refused(self, answer: http.client.HTTPResponse) -> None:
        try:
            raise_for(self.what, answer)
        except StageError as error:
            # Nothing is computed yet: a new submission brings new URLs and costs little.
            error.permanent = error.permanent and error.code != EXIT_ACCESS
            raise

    @staticmethod
    def _total(answer: http.client.HTTPResponse, part: ByteRange) -> int | None:
        """Return the length of the whole object of which the answer has a part; None if the server does not say."""
        found = re.match(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)\Z", answer.getheader("Content-Range") or "")
        if found is None or int(found.group(1)) != part.at:
            raise StartOverError("the server sent another part than the one that is missing")
        return None if found.group(2) == "*" else int(found.group(2))

    def _check_identity(self, answer: http.client.HTTPResponse, total: int | None) -> None:
        """Refuse another version of the object before its first byte is read."""
        with self._lock:
            etag, old = plain_etag(answer.getheader("ETag")), self._etag or self.source["etag"]
            if old and etag and etag != old:
                self._changed(f"its entity tag was {quoted(old)} and is now {quoted(etag)}")
            if None not in (self.source["size"], total) and total != self.source["size"]:
                self._changed("it had {} bytes and now has {}".format(self.source["size"], total))
            self._etag = etag
            if answer.getheader("x-amz-server-side-encryption") == "aws:kms" or answer.getheader(
                "x-amz-server-side-encryption-customer-algorithm"
            ):
                self._md5 = None  # the tag of an encrypted object is not the MD5 of its content

    def _receive(self, answer: http.client.HTTPResponse, part: ByteRange, end: int | None) -> None:
        """Write the bytes of an answer.

        :param end: the byte after the last, where that is known.
        """
        with local_file("create the input file"):
            whole = part.end is None and not part.at
            file = open(self.path, "wb" if whole else "r+b")  # noqa: SIM115 (closed below; a broken connection must not count as a local error)
        with file:
            file.seek(part.at)
            for chunk in iter(lambda: answer.read(CHUNK), b""):
                if end is not None and part.at + len(chunk) > end:
                    raise StageError(
                        f"{self.what} is longer than the {end} bytes it was seen with", EXIT_INPUT, "input-changed"
                    )
                with local_file("write the input file"):
                    file.write(chunk)
                    file.flush()
                part.at += len(chunk)
                self._digests.add(part.at - len(chunk), chunk)
                if self._end.is_set():
                    raise StoppedError
        if end is not None and part.at < end:
            raise TransientError(f"the connection ended after {part.at} of {end} bytes")

    def _verify(self) -> None:
        if self._digest is not None:
            (kind, wanted), seen = self.source["checksum"], self._digest.hexdigest()
            if seen != wanted.rjust(8, "0"):
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


def _gravity(error: Exception) -> int:
    """What decides comes first, then a refusal, which fresh access may mend, then what another attempt may."""
    if isinstance(error, TransientError):
        return 2
    if isinstance(error, RefusedError):
        return 1
    return DECIDES if isinstance(error, StageError) else 3
