# SPDX-License-Identifier: Apache-2.0
"""Access that outlives the queue: who submitted the job renews a sealed document in the store, and this reads it.

URLs and tokens live for hours, queues may take days, and what interLink took of a pod never changes any more. So a
specification names a document beside the results which does not exist as long as the first access lasts. Whoever
waits for the job writes it, and again whenever half of what it holds has run out; it is sealed with a key that is
derived from the one of the result (``jobs/access.py`` is the other side).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from datetime import datetime, timezone
from typing import Any, Callable, Iterator, Sequence

from airflow_provider_oscar.supervisor.errors import EXIT_SPEC, StageError, TransientError
from airflow_provider_oscar.supervisor.sealing import derived, opened_with
from airflow_provider_oscar.supervisor.spec import (
    NOT_OF_THE_FORM,
    SPEC_LIMIT,
    read_access,
    read_output,
    read_url,
    texts,
)
from airflow_provider_oscar.supervisor.text import quoted, say
from airflow_provider_oscar.supervisor.transport import RENEWAL, exchange, persist, raise_for, refuse_page

#: Purpose for which the document's key is derived from that of the result.
PURPOSE = b"access"
#: Shares of a lifetime: at this age access is renewed, and so often is looked whether it is.
STALE, LOOKS = 0.5, 16.0
#: Seconds between two polls, at least and at most.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 3600.0
#: What a store answers where there is no such document; S3 says 403 to whom it does not let list.
NONE_THERE = (401, 403, 404, 410)


class Access:
    """What one job may reach, kept fresh.

    :param spec: as of :func:`~airflow_provider_oscar.supervisor.spec.read_spec`; changed in place.
    :param renewed: called with the specification's new output.
    """

    def __init__(self, spec: dict[str, Any], renewed: Callable[[dict[str, object]], None]) -> None:
        self.spec, self._renewed = spec, renewed
        self._lock, self._done = threading.Lock(), threading.Event()

    @property
    def expired(self) -> bool:
        """Whether what the job has ran out, as far as it knows."""
        terms = self.spec["access"]
        return terms is not None and _now() >= terms["until"]

    @property
    def stale(self) -> bool:
        """Whether fresh access is likely to be there."""
        terms = self.spec["access"]
        return terms is not None and _now() >= terms["until"] - terms["lifetime"] * (1 - STALE)

    def refresh(self) -> None:
        """Take fresh access if what there is gets old; where it has run out, with the usual attempts."""
        if self.expired:
            try:
                persist("renewal of the job's access", self._must_renew)
            except StageError as error:
                say(str(error))  # what needs it says what it means
        elif self.stale:
            self.renew()

    def renew(self) -> bool:
        """Fetch the document once, and return whether it brought anything newer; never raises."""
        with self._lock:
            try:
                return self._take()
            except (StageError, OSError, http.client.HTTPException) as error:
                say(f"the job's access cannot be renewed now: {error}")
                return False

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it fresh from a thread while something long is done, and when a store refuses it."""
        if self.spec["access"] is None:
            yield
            return
        thread = threading.Thread(target=self._keep, name="access", daemon=True)
        RENEWAL.ask = self.renew
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            RENEWAL.ask = None

    def _keep(self) -> None:
        pause = self.spec["access"]["lifetime"].total_seconds() / LOOKS
        while not self._done.wait(min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)):
            if self.stale:
                self.renew()

    def _must_renew(self) -> None:
        with self._lock:
            # The thread that keeps it fresh may have taken it while this one paused.
            if self.expired and not self._take():
                raise TransientError("nobody has renewed it yet")

    def _take(self) -> bool:
        terms = self.spec["access"]
        with exchange("GET", terms["url"], terms["headers"]) as answer:
            if answer.status in NONE_THERE:
                return False
            if answer.status != 200:
                raise_for("the job's renewed access", answer)
            refuse_page(answer)
            raw = answer.read(SPEC_LIMIT)
        document = read_document(raw, self.spec.get("batch_key") or self.spec["signing_key"])
        fresh = document["access"]
        if fresh["until"] <= terms["until"]:
            return False
        apply(self.spec, document)
        for each in (self.spec, *self.spec["objects"]):
            each["access"] = fresh
        self._renewed(self.spec["output"])
        RENEWAL.count += 1
        say("the job's access was renewed and lasts until {}".format(fresh["until"].isoformat(timespec="seconds")))
        return True


def _now() -> datetime:
    return datetime.now(timezone.utc)


def read_document(raw: bytes, key: bytes) -> dict[str, Any]:
    """Return a document as of ``jobs/access.schema.json``, its ``access`` read.

    :param raw: as the store has it, sealed.
    :param key: that signs the job's manifest.
    :raises StageError: if it is not one that was made for this job.
    """
    try:
        document = json.loads(opened_with(raw, derived(key, PURPOSE)).decode("utf-8"))
        return {**document, "access": read_access({**document["access"]})}
    except NOT_OF_THE_FORM as error:
        raise StageError(f"it is not what it should be: {quoted(error)}", EXIT_SPEC, "bad-specification") from error


def apply(spec: dict[str, Any], document: dict[str, Any]) -> None:
    """Put fresh URLs and headers where the old ones are; what has none keeps its old one.

    :param spec: of the job, or of one object of a batch.
    :param document: what was renewed.
    :raises StageError: if it is about other objects.
    """
    try:
        mine = [each for each in document.get("objects") or () if each["submission_id"] == spec["submission_id"]]
        if "batch_key" in spec and not mine:
            return  # an object that was done when access was renewed
        if mine:
            # What it has none of its own of is the job's.
            own = {name: value for name, value in mine[0].items() if value is not None}
            document = {**document, **own, "objects": []}
        output = read_output(document["output"])
        if output["uri"] != spec["output"]["uri"]:
            raise StageError("it is about another output", EXIT_SPEC, "bad-specification")
        for name in ("inputs", "resume_from", "files"):
            known = [each for each in spec[name] if "url" in each]
            for each, fresh in zip(known, document.get(name) or ()):
                if fresh is not None and fresh["uri"] == each["uri"]:
                    each.update(url=read_url(fresh["url"]), headers=texts(fresh.get("headers")))
        spec["output"].update(output)
        _apply_destinations(spec["outputs"], document.get("outputs") or ())
        for each in spec["objects"]:
            apply(each, document)
    except NOT_OF_THE_FORM as error:
        raise StageError(f"it lacks {quoted(error)}", EXIT_SPEC, "bad-specification") from error


def _apply_destinations(known: list[dict[str, Any]], renewed: Sequence[dict[str, Any] | None]) -> None:
    """Put fresh access to the places where outputs go by their names."""
    for each, fresh in zip(known, renewed):
        if each["output"] is not None and fresh is not None:
            output = read_output(fresh)
            if output["uri"] == each["output"]["uri"]:
                each["output"].update(output)
