# SPDX-License-Identifier: Apache-2.0
"""S3 and everything that speaks its API, for connections of type ``oscar_s3`` and ``aws``.

Single calls go through boto3; listings go through a streaming reader of our own (:mod:`.listing`) and fall back to
boto3 when a store refuses it. All methods block: triggers call them through ``asyncio.to_thread``.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
    quoted,
)
from airflow_provider_oscar.core.objects import DEFAULT_S3_CONNECTION, ObjectEvent, StoreType, normalised_etag
from airflow_provider_oscar.core.staging import StageIn, StageOutS3Post
from airflow_provider_oscar.hooks.base import NamedByConnection
from airflow_provider_oscar.hooks.http.closing import closes_itself
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.pace import paced
from airflow_provider_oscar.hooks.http.tls import tls_context
from airflow_provider_oscar.hooks.s3 import staging
from airflow_provider_oscar.hooks.s3.clients import make_client
from airflow_provider_oscar.hooks.s3.errors import require_store, s3_error
from airflow_provider_oscar.hooks.s3.listing import ListingPage, MakeEvent, Progress
from airflow_provider_oscar.hooks.s3.requests import StreamFailure, boto_page, stream_page
from airflow_provider_oscar.hooks.s3.settings import AccessKeys, S3Settings

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2RequestTypeDef


class OscarS3Hook(NamedByConnection):
    """Objects of one S3 store.

    :param s3_conn_id: connection of type ``oscar_s3`` or ``aws``. Login is the access key, password the secret key;
        without login, boto3 looks for credentials where it always does. Host or extra ``endpoint_url`` is the
        store's URL (empty for Amazon). Further extras: ``region_name``, ``verify`` (boolean or CA file),
        ``addressing_style`` (auto, path, virtual; path where an endpoint is set), ``session_token``,
        ``connect_timeout`` and ``read_timeout`` (seconds to reach the store, 10, and between two bytes, 60).
    :param connection: the connection itself, when the caller fetched it already (a trigger does so without
        blocking); looked up by id otherwise.
    """

    conn_name_attr = "s3_conn_id"
    default_conn_name = DEFAULT_S3_CONNECTION
    conn_type = "oscar_s3"
    hook_name = "OSCAR S3"

    def __init__(self, s3_conn_id: str = default_conn_name, *, connection: Connection | None = None) -> None:
        super().__init__()
        self.s3_conn_id = s3_conn_id
        self._connection = connection
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._boto_only = threading.Event()

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self._connection or self.get_connection(self.s3_conn_id)

    @cached_property
    def settings(self) -> S3Settings:
        """What the connection says."""
        return S3Settings.from_connection(self.connection)

    @property
    def call_deadline(self) -> float:
        """Seconds after which a call counts as hanging."""
        return self.settings.connect_timeout + self.settings.read_timeout

    @cached_property
    def client(self) -> S3Client:
        """The boto3 client; safe to use from several threads."""
        with self.errors("set up the client"):
            client = make_client(self.settings, self.keys())
        client.meta.events.register("before-parse.s3", self._require_store)
        return client

    def _require_store(self, response_dict: Mapping[str, Any], event_name: str, **_: object) -> None:
        headers = {str(name).lower(): str(value) for name, value in (response_dict.get("headers") or {}).items()}
        status, operation = int(response_dict["status_code"]), event_name.rpartition(".")[2]
        body = response_dict.get("body")
        require_store(status, headers, body, operation, conn_id=self.s3_conn_id, endpoint=self.settings.endpoint_url)

    def keys(self) -> AccessKeys:
        """Return the access key as boto3's clients take it; empty if boto3 is to look for one."""
        if not self.settings.access_key:
            return {}
        return {
            "aws_access_key_id": self.settings.access_key,
            "aws_secret_access_key": self.connection.password or "",
            "aws_session_token": self.connection.extra_dejson.get("session_token") or None,
        }

    def get_conn(self) -> S3Client:
        """Return :attr:`client`, as hooks do."""
        return self.client

    def test_connection(self) -> tuple[bool, str]:
        """Answer the Test button: whether the store is reached and knows the key."""
        try:
            with self.errors("list the buckets"):
                buckets = self.client.list_buckets().get("Buckets", [])
        except DefinitionError as error:
            if isinstance(error.__cause__, ClientError) and "may not do this" in str(error):
                return True, "Connected; this access key may not list buckets, which is fine for a restricted one."
            return False, str(error)
        except OscarProviderError as error:
            return False, str(error)
        seen = f"{len(buckets)} bucket{'' if len(buckets) == 1 else 's'} visible"
        return True, f"Connected to {self.settings.endpoint_url or 'Amazon S3'}; {seen}."

    def list_page(
        self,
        bucket: str,
        prefix: str = "",
        *,
        token: str | None = None,
        start_after: str | None = None,
        delimiter: str = "",
        page_size: int = 1000,
    ) -> ListingPage:
        """Return one page of the objects below a prefix, in the order of the store.

        :param token: ``next_token`` of the page before.
        :param start_after: list only keys after this one.
        :param delimiter: fold what follows it into common prefixes; usually ``/`` or empty.
        :param page_size: keys asked for; Amazon gives at most 1000.
        :raises DefinitionError: wrong key, missing bucket, no right, or an endpoint that redirects elsewhere.
        :raises TransientError: the store cannot be reached, is busy, or its answer was cut short.
        :raises PermanentError: the answer shows something else than what was asked for.
        """
        asked: ListObjectsV2RequestTypeDef = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": page_size}
        if token:
            asked["ContinuationToken"] = token
        if start_after:
            asked["StartAfter"] = start_after
        if delimiter:
            asked["Delimiter"] = delimiter
        refused = False
        if not self._boto_only.is_set():
            with self.errors("presign a listing", bucket):
                url = self.client.generate_presigned_url(
                    "list_objects_v2", Params={**asked, "EncodingType": "url"}, ExpiresIn=300
                )
            answer = stream_page(self._http_client(), url, self._event_maker(bucket), what=self._listing(bucket))
            if isinstance(answer, ListingPage):
                return self._below(answer, prefix, bucket)
            refused = answer is StreamFailure.REFUSED
        with self.errors(f"list {quoted(prefix)}", bucket):
            page = boto_page(self.client, asked, self._event_maker(bucket), what=self._listing(bucket))
        if refused:  # a store that answers boto3 but not us is not asked again
            self._boto_only.set()
        return self._below(page, prefix, bucket)

    def _below(self, page: ListingPage, prefix: str, bucket: str) -> ListingPage:
        """Return a page of what was asked for: what else it shows would be reported, or removed with a job's parts.

        :raises PermanentError: if a key does not begin with the prefix.
        """
        other = next((each.key for each in page.events if not each.key.startswith(prefix)), None)
        if other is not None:
            raise PermanentError(
                f"{self._listing(bucket)}: asked for what begins with {quoted(prefix)}, the store shows "
                f"{quoted(other)}; it is not used (is this an S3 endpoint, and does it know prefixes?)"
            )
        return page

    def list_pages(
        self, bucket: str, prefix: str = "", *, start_after: str | None = None, delimiter: str = ""
    ) -> Iterator[ListingPage]:
        """Yield every page below a prefix; a token that repeats ends in an error and not in a loop."""
        token, progress = "", Progress(self._listing(bucket))
        while True:
            page = self.list_page(bucket, prefix, token=token, start_after=start_after, delimiter=delimiter)
            yield page
            if not (token := progress.take(page)):
                return

    def list_fan_out(self, bucket: str, prefix: str = "", *, workers: int = 4) -> Iterator[ListingPage]:
        """Yield every page below a prefix, several of its sub-prefixes at a time; pages come in no order.

        Worth it where the store answers slowly, since reading the answers takes turns on one core.

        :param workers: most requests at a time; as many pages are held in memory.
        """
        waiting: deque[tuple[str, str | None]] = deque()
        known: set[str] = set()
        for page in self.list_pages(bucket, prefix, delimiter="/"):
            found = {each for each in (*page.common_prefixes, *page.raw_prefixes) if each.startswith(prefix)}
            waiting.extend((folded, None) for folded in sorted(found - known))
            known |= found
            yield page
        running: dict[Future[ListingPage], tuple[str, str | None]] = {}
        progress: dict[str, Progress] = defaultdict(lambda: Progress(self._listing(bucket)))
        with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="s3-listing") as pool:
            while waiting or running:
                while waiting and len(running) < workers:
                    below, token = waiting.popleft()
                    running[pool.submit(self.list_page, bucket, below, token=token)] = (below, token)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    below, _ = running.pop(future)
                    page = future.result()
                    if following := progress[below].take(page):
                        waiting.appendleft((below, following))
                    yield page

    def _listing(self, bucket: str) -> str:
        return f"{self.display_name}: listing bucket {bucket!r}"

    def head(self, bucket: str, key: str) -> ObjectEvent | None:
        """Return the current version of an object, or None if there is none.

        :raises DefinitionError: if the bucket does not exist, which a store says with the same 404.
        """
        try:
            with self.errors(f"look at {quoted(key)}", bucket):
                answer = self.client.head_object(Bucket=bucket, Key=key)
        except BadInputError:
            self._require_absent(bucket, key)
            return None
        return ObjectEvent(
            source=StoreType.S3,
            conn_id=self.s3_conn_id,
            container=bucket,
            key=key,
            size=answer.get("ContentLength"),
            etag=normalised_etag(answer.get("ETag", "")),
            version_id=_version(answer.get("VersionId")),
            modified=answer.get("LastModified") or datetime.fromtimestamp(0, UTC),
        )

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object is there now."""
        return self.head(bucket, key) is not None

    def read_bytes(self, uri: str, limit: int) -> bytes | None:
        """Return the content of a small object, or None if there is none.

        :param uri: ``s3://bucket/key``.
        :param limit: most bytes; a larger object is an error, not cut.
        :raises PermanentError: if the object is larger.
        """
        bucket, key = staging.s3_path(uri)
        try:
            with self.errors(f"read {quoted(key)}", bucket), closing(self._open(bucket, key)) as body:
                data = b""
                # To its end, since only there it is noticed that it was cut short.
                while len(data) <= limit and (more := body.read(limit + 1 - len(data))):
                    data += more
        except BadInputError:
            return None
        if len(data) > limit:
            raise PermanentError(f"{self.display_name}: {quoted(uri)} is larger than {limit} bytes; not read")
        return data

    def _open(self, bucket: str, key: str) -> StreamingBody:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"]

    def put_bytes(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, replacing what is there."""
        with self.errors(f"write {quoted(key)}", bucket):
            self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_file(self, bucket: str, key: str, path: Path) -> None:
        """Write an object with the content of a local file, in parts where it is large."""
        with self.errors(f"write {quoted(key)}", bucket):
            try:
                self.client.upload_file(str(path), bucket, key)
            except S3UploadFailedError as error:
                # boto3 wraps what the store said, of which it keeps the text alone.
                raise (error.__context__ or error) from None

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object; it is not an error if there is none."""
        with self.errors(f"delete {quoted(key)}", bucket):
            self.client.delete_object(Bucket=bucket, Key=key)

    def stage_in(self, event: ObjectEvent, *, lifetime: timedelta) -> StageIn:
        """Return what a job needs to download one version of an object: a presigned URL, and no key.

        :param event: the object; it is checked to be there and unchanged.
        :param lifetime: how long the URL is good, at most seven days.
        :raises BadInputError: if the object is gone or was overwritten.
        :raises DefinitionError: if the lifetime is too long.
        """
        return staging.stage_in(self, event, lifetime=lifetime)

    def reading(self, bucket: str, key: str, *, lifetime: timedelta) -> tuple[str, dict[str, str]]:
        """Do :meth:`.ObjectStore.reading`; no request is made."""
        return staging.reading(self, bucket, key, lifetime=lifetime)

    def stage_out(
        self, uri: str, *, submission_id: str, lifetime: timedelta, max_bytes: int | None = None
    ) -> StageOutS3Post:
        """Return what a job needs to upload its results: a POST policy for one prefix, and no key.

        :param uri: ``s3://bucket/prefix/``; results go to ``<uri><submission_id>/``.
        :param submission_id: last part of the prefix.
        :param lifetime: how long the policy is good, at most seven days.
        :param max_bytes: largest single upload; 5 GiB (the most S3 takes in one POST) if None.
        """
        return staging.stage_out(self, uri, submission_id=submission_id, lifetime=lifetime, max_bytes=max_bytes)

    def _event_maker(self, bucket: str) -> MakeEvent:
        conn_id = self.s3_conn_id

        def make(key: str, size: int | None, etag: str, modified: datetime) -> ObjectEvent:
            return ObjectEvent(StoreType.S3, conn_id, bucket, key, size, etag, "", modified)

        return make

    def _http_client(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                settings = self.settings
                client = httpx.Client(
                    verify=tls_context(settings.verify, conn_id=self.s3_conn_id),
                    cookies=cookie_jar(),
                    timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
                    follow_redirects=False,
                )
                self._http = closes_itself(paced(client))
            return self._http

    def close(self) -> None:
        """Close the connections kept for listings."""
        with self._lock:
            if self._http is not None:
                self._http.close()
                self._http = None

    def _require_absent(self, bucket: str, key: str) -> None:
        """Have a listing confirm that an object is not there.

        HEAD has no body, so that its 404 may be that of a missing bucket, or of a proxy while the store is away.

        :raises DefinitionError: if there is no such bucket.
        :raises TransientError: if something else than a store answers, or the object is there after all.
        """
        try:
            page = self.list_page(bucket, key, page_size=1)
        except (AccessError, PermanentError):  # the store's own words, which tell that it is there
            return
        if any(each.key == key for each in page.events):
            raise TransientError(
                f"{self.display_name}: {quoted(key)} in bucket {bucket!r} was not there and is listed; look again"
            )

    @contextmanager
    def errors(self, action: str, bucket: str = "") -> Iterator[None]:
        """Translate what boto3 raises.

        :param action: words that end "cannot".
        :param bucket: that it is about.
        """
        words = f"{action} in bucket {bucket!r}" if bucket else action
        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError, ValueError) as error:
            if isinstance(error, OscarProviderError):
                raise
            raise s3_error(
                error, conn_id=self.s3_conn_id, endpoint=self.settings.endpoint_url, action=words, bucket=bucket
            ) from error


def _version(version: str | None) -> str:
    return "" if version in (None, "null") else str(version)
