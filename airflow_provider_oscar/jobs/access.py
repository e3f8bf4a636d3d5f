# SPDX-License-Identifier: Apache-2.0
"""Access that outlives a queue: what a job was given at its submission is renewed as long as somebody waits for it.

Presigned URLs and macaroons live a week at most, and a site may want them to live for an hour. A pod that interLink
has taken does not see a renewed Secret, and an OSCAR job never had one. So each specification names a document beside
the results that does not exist at first. Where a job may outlive its access, the document is written when the job is
submitted or adopted, and whoever waits for it renews all that is in it when half of its time is over. It is sealed with
a key derived from the one of the job's result, and removed when the job has ended; ``supervisor/access.py`` reads it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, quoted
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, split_uri
from airflow_provider_oscar.core.redacted import Redacted
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.core.staging import Line, StageOut, Url
from airflow_provider_oscar.hooks.storage import ObjectStore
from airflow_provider_oscar.jobs.many_objects import stage_in_present
from airflow_provider_oscar.jobs.sealing import seal, unsealed
from airflow_provider_oscar.jobs.spec import AccessTerms

#: Below the parent of the jobs' output prefixes.
ACCESS_PREFIX = ".airflow-oscar-access"
#: What S3 signatures and dCache's macaroons may last.
LONGEST_ACCESS = timedelta(days=7)
#: Share of a lifetime after which access is renewed.
RENEWED_AT = 0.5
#: Bytes of a document.
DOCUMENT_LIMIT = 64 * 1024 * 1024
_KEY_ID = "ACCESS00"

#: Finds the store of an event, or of a URI and a connection.
Stores = Callable[..., ObjectStore]


class AccessPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a job reaches, in the order of its specification; what fresh access is made from.

    No capability is among it.

    :param submission_id: name of the job.
    :param output_uri: parent of its output prefix.
    :param output_conn_id: connection of the output's store.
    :param lifetime: for how long access is given each time.
    :param max_bytes: largest single upload, or null.
    :param inputs: objects to stage in.
    :param files: files of the job that are in a store.
    :param resume_from: files of a checkpoint.
    :param objects: of a batch: name of the result, and the object.
    :param outputs: of each pattern of output names: parent of the place, and its connection; both empty for
        ``output_uri``.
    :param checkpoints: of a batch: name of the result, and the files of its own checkpoint.
    """

    submission_id: str
    output_uri: str
    output_conn_id: str
    lifetime: timedelta
    max_bytes: int | None = None
    inputs: tuple[ObjectEvent, ...] = ()
    files: tuple[ObjectEvent, ...] = ()
    resume_from: tuple[ObjectEvent, ...] = ()
    objects: tuple[tuple[str, ObjectEvent], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    checkpoints: dict[str, tuple[ObjectEvent, ...]] = msgspec.field(default_factory=dict)


class RenewedInput(Redacted, frozen=True):
    """Fresh access to one object.

    :param uri: which object, as the specification names it.
    :param url: where to ``GET`` it.
    :param headers: sent to the origin of ``url`` and to no other.
    """

    uri: str
    url: Url
    headers: dict[Line, Line] = msgspec.field(default_factory=dict)
    redacted: ClassVar[frozenset[str]] = frozenset({"url", "headers"})


class RenewedObject(msgspec.Struct, frozen=True):
    """Fresh access for one object of a batch.

    :param submission_id: name of its result.
    :param inputs: the object; null if it cannot be reached any more.
    :param output: where its results go.
    :param outputs: where they go by their names, in the order of the specification.
    :param resume_from: files of its own checkpoint, likewise; null for those of the job.
    """

    submission_id: str
    inputs: tuple[RenewedInput | None, ...]
    output: StageOut
    outputs: tuple[StageOut | None, ...] = ()
    resume_from: tuple[RenewedInput | None, ...] | None = None


class AccessDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Fresh access for one job, as the supervisor reads it when it is unsealed.

    :param access: how long this access lasts, and where the next will be.
    :param output: where the job's results go.
    :param inputs: its inputs, in the order of the specification; null for what cannot be reached any more.
    :param files: its stored files, likewise.
    :param resume_from: files of its checkpoint, likewise.
    :param objects: the objects of a batch.
    :param outputs: where results go by their names, in the order of the specification; null for ``output``.
    :param plan: what all this was made from; the supervisor does not read it.
    """

    access: AccessTerms
    output: StageOut
    inputs: tuple[RenewedInput | None, ...]
    files: tuple[RenewedInput | None, ...]
    resume_from: tuple[RenewedInput | None, ...]
    objects: tuple[RenewedObject, ...]
    plan: AccessPlan
    outputs: tuple[StageOut | None, ...] = ()


def open_stores(locations: Iterable[tuple[str, str]], stores: Stores) -> list[tuple[ObjectStore, str] | None]:
    """Return store and URI of each place; each store's client is made once.

    :param locations: URI and connection; None is returned for an empty URI.
    :param stores: finds stores.
    """
    known: dict[tuple[str, str], ObjectStore] = {}
    found: list[tuple[ObjectStore, str] | None] = []
    for uri, conn_id in locations:
        key = (uri.partition("://")[0], conn_id)
        if uri and key not in known:
            known[key] = stores(uri, conn_id)
        found.append((known[key], uri) if uri else None)
    return found


def document_location(output_uri: str, submission_id: str) -> tuple[str, str]:
    """Return container and key of a job's document."""
    source, container, key = split_uri(f"{output_uri.rstrip('/')}/{ACCESS_PREFIX}/{submission_id}")
    if source is StoreType.DCACHE:
        container, _, key = key.rpartition("/")
    return container, key


def terms(plan: AccessPlan, stores: Stores, now: datetime) -> AccessTerms:
    """Return what a specification says of the document: the longest way to read it that there is.

    :param plan: what the job reaches.
    :param stores: finds stores.
    :param now: when access is given.
    """
    store = stores(plan.output_uri, plan.output_conn_id)
    location = document_location(plan.output_uri, plan.submission_id)
    try:
        url, headers = store.reading(*location, lifetime=LONGEST_ACCESS)
    except DefinitionError:
        # A dCache door refuses more than its dcache.macaroons.max-lifetime; what it took for the rest it takes here.
        url, headers = store.reading(*location, lifetime=plan.lifetime)
    lifetime = plan.lifetime.total_seconds()
    return AccessTerms(url=url, headers=dict(headers), until=now + plan.lifetime, lifetime=lifetime)


def publish(plan: AccessPlan, key: str, stores: Stores, now: datetime) -> datetime:
    """Give fresh access to all that a job reaches, write the document, and return when the access ends.

    :param plan: what the job reaches.
    :param key: that signs the job's manifest, in hexadecimal digits.
    :param stores: finds stores.
    :param now: the time.
    """
    store = stores(plan.output_uri, plan.output_conn_id)
    others = open_stores(plan.outputs, stores)
    fresh = terms(plan, stores, now)

    reached = _reached(plan, stores)

    def output(submission_id: str) -> StageOut:
        return store.stage_out(
            plan.output_uri, submission_id=submission_id, lifetime=plan.lifetime, max_bytes=plan.max_bytes
        )

    def outputs(submission_id: str) -> tuple[StageOut | None, ...]:
        return tuple(
            each
            and each[0].stage_out(
                each[1], submission_id=submission_id, lifetime=plan.lifetime, max_bytes=plan.max_bytes
            )
            for each in others
        )

    document = AccessDocument(
        access=fresh,
        output=output(plan.submission_id),
        inputs=reached(plan.inputs),
        files=reached(plan.files),
        resume_from=reached(plan.resume_from),
        objects=tuple(
            RenewedObject(
                name,
                reached([each]),
                output(name),
                outputs(name),
                reached(plan.checkpoints[name]) if name in plan.checkpoints else None,
            )
            for name, each in plan.objects
        ),
        plan=plan,
        outputs=() if plan.objects else outputs(plan.submission_id),
    )
    data = seal(_written(document), _document_key(key), _KEY_ID)
    store.put_bytes(*document_location(plan.output_uri, plan.submission_id), data)
    return fresh.until


def _reached(plan: AccessPlan, stores: Stores) -> Callable[[Iterable[ObjectEvent]], tuple[RenewedInput | None, ...]]:
    """Return what gives the fresh access to objects of a plan; that an object is gone, the job will say itself."""
    single = [*plan.inputs, *plan.files, *plan.resume_from, *(event for _, event in plan.objects)]
    events = list(dict.fromkeys([*single, *(event for saved in plan.checkpoints.values() for event in saved)]))
    given = dict(zip(events, stage_in_present(events, plan.lifetime, stores), strict=True))

    def reached(wanted: Iterable[ObjectEvent]) -> tuple[RenewedInput | None, ...]:
        found = (given[event] for event in wanted)
        return tuple(None if each is None else RenewedInput(each.uri, each.url, each.headers) for each in found)

    return reached


def renew(
    output_uri: str, output_conn_id: str, submission_id: str, keys: Iterable[str], *, stores: Stores, now: datetime
) -> datetime | None:
    """Renew a job's document if half of its time is over, and return when that is the case again.

    :param output_uri: parent of the job's output prefix.
    :param output_conn_id: connection of the output's store.
    :param submission_id: name of the job.
    :param keys: that may sign the job's manifest, in hexadecimal digits.
    :param stores: finds stores.
    :param now: the time.
    :return: None if there is no document, or it is not of this job.
    """
    store = stores(output_uri, output_conn_id)
    container, path = document_location(output_uri, submission_id)
    raw = store.read_bytes(f"{output_uri.rstrip('/')}/{ACCESS_PREFIX}/{submission_id}", DOCUMENT_LIMIT)
    if raw is None:
        return None
    for key in keys:
        text = unsealed(raw, _document_key(key), DOCUMENT_LIMIT)
        if text is None:
            continue
        document = _read(text, f"connection {output_conn_id!r}: {quoted(path)} in {quoted(container)}")
        plan, until = document.plan, document.access.until
        due = until - plan.lifetime * (1 - RENEWED_AT)
        if now < due:
            return due
        until = publish(plan, key, stores, now)
        return until - plan.lifetime * (1 - RENEWED_AT)
    raise DefinitionError(
        f"connection {output_conn_id!r}: {quoted(path)} in {quoted(container)} is not the access of job "
        f"{submission_id!r}, or was sealed with another [oscar] signing_key; it is not renewed"
    )


def withdraw(output_uri: str, output_conn_id: str, submission_id: str, stores: Stores) -> None:
    """Remove a job's document; it is not an error if there is none.

    :param output_uri: parent of the job's output prefix.
    :param output_conn_id: connection of the output's store.
    :param submission_id: name of the job.
    :param stores: finds stores.
    """
    stores(output_uri, output_conn_id).delete(*document_location(output_uri, submission_id))


@dataclass(slots=True)
class AccessRenewer:
    """Renews the access of one job while it is waited for; holds when that is due.

    :param renew: does it, and returns when it is due again; None if there is nothing to renew.
    :param due: when it is due first.
    :param lifetime: of the access.
    """

    renew: Callable[[], datetime | None]
    due: datetime
    lifetime: timedelta

    def pause(self, now: datetime) -> float:
        """Seconds until the next renewal."""
        return max((self.due - now).total_seconds(), 0.0)

    def attempt(self) -> str:
        """Renew it, and return why that failed; empty if it did not."""
        now = datetime.now(UTC)
        try:
            due = self.renew()
        except OscarProviderError as error:
            # As often as fits into what is left, and not more often than every second.
            self.due = now + max(self.lifetime / 16, timedelta(seconds=1))
            return str(error)
        self.due = due or now + self.lifetime * RENEWED_AT
        return ""


def _written(document: AccessDocument) -> bytes:
    # Not msgspec's writer: names that are not UTF-8 hold surrogates, which only ASCII escapes can carry.
    return json.dumps(msgspec.to_builtins(document), separators=(",", ":")).encode()


def _read(text: bytes, display_name: str) -> AccessDocument:
    try:
        return msgspec.convert(parse_json(text), AccessDocument)
    except (ValueError, DefinitionError) as error:
        raise DefinitionError(
            f"{display_name} is not the access of a job ({quoted(error)}); expected the fields of access.schema.json. "
            "It was written by another version of this provider; the job keeps what it was given when it was submitted"
        ) from error


def _document_key(key: str) -> bytes:
    return hmac.new(bytes.fromhex(key), b"access", hashlib.sha256).digest()
