# SPDX-License-Identifier: Apache-2.0
"""Where stores tell of new objects: an SQS queue, and MinIO's ListenBucketNotification stream.

Both carry the credentials of an S3 connection. What they say is not trusted: :mod:`.s3` tells whether it is true.
:class:`SqsQueue` blocks; :func:`listen` belongs to the event loop.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import boto3
import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError, quoted
from airflow_provider_oscar.core.shapes import parse_json, sentence
from airflow_provider_oscar.hooks.http.cookies import cookie_jar
from airflow_provider_oscar.hooks.http.errors import error_class, is_page
from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, transport_error
from airflow_provider_oscar.hooks.http.pace import Silence, paced
from airflow_provider_oscar.hooks.http.tls import tls_context
from airflow_provider_oscar.hooks.s3.errors import s3_error
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.pace import pace_boto

#: Messages of one answer; the most SQS gives.
BATCH = 10
#: Bytes of one line of a listen stream, which is read on the event loop; an event of a key of 1024 bytes has under
#: 10 000.
LINE_LIMIT = 128 * 1024
#: Seconds without a byte until a listen stream counts as dead; MinIO sends a blank every half second.
SILENCE = 60.0
#: Bytes of a line that tell XML from a page for people.
_PAGE_BEGINS = 500
#: The first element of XML or HTML, whole; such an answer may stay open, so its line is not waited for.
_FIRST_TAG = re.compile(rb"(?:<\?[^>]*>\s*)?<(?:[A-Za-z]|![Dd])[^>]*>")
_CREATED = "s3:ObjectCreated:*"
#: MinIO compresses for whoever accepts it, which is of no use to lines that are flushed one by one.
_PLAIN = {"Accept-Encoding": "identity"}
_GONE = frozenset({"QueueDoesNotExist", "NonExistentQueue"})
#: Seconds that SQS may keep a receive call waiting; the client must wait longer for an answer.
_LONGEST_WAIT = 20


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One message of a queue: its text, and the handle by which it is deleted or given back."""

    body: str
    receipt: str


class SqsQueue:
    """One SQS queue, reached with the credentials of an S3 connection.

    :param hook: hook of an ``oscar_s3`` or ``aws`` connection.
    :param queue_url: URL of the queue. Of Amazon's URLs region and endpoint are taken, of others the origin.
    """

    def __init__(self, hook: OscarS3Hook, queue_url: str) -> None:
        self._hook = hook
        self._url = queue_url

    @cached_property
    def _client(self) -> Any:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        labels = host.split(".")
        region = labels[1] if amazon and labels[0] == "sqs" else self._hook.settings.region
        settings = self._hook.settings
        with self._errors("set up the client"):
            client = boto3.session.Session().client(
                "sqs",
                endpoint_url=None if amazon else f"{parts.scheme}://{parts.netloc}",
                region_name=region,
                verify=self._hook.settings.verify,
                config=Config(
                    connect_timeout=settings.connect_timeout,
                    read_timeout=max(settings.read_timeout, _LONGEST_WAIT + settings.connect_timeout),
                    retries={"mode": "standard"},
                ),
                **self._hook.keys(),
            )
        pace_boto(client)
        client.meta.events.register("before-parse.sqs", self._require_queue)
        return client

    def _require_queue(self, response_dict: Mapping[str, Any], **_: object) -> None:
        """Refuse what is none of SQS: boto3 takes a success for one without messages, and fails at an error."""
        try:
            found = parse_json(response_dict.get("body") or b"")
        except ValueError:  # of an error boto3 shows the text
            found = None if int(response_dict["status_code"]) < 400 else {}
        if not isinstance(found, dict):
            raise TransientError(
                f"{self._hook.display_name}: what answered for the SQS queue {quoted(self._url)} is not "
                "SQS; check queue_url, and any proxy before it"
            )

    def receive(self, *, wait: int, visibility: int) -> list[QueueMessage]:
        """Return up to ten messages.

        :param wait: seconds to wait for the first one, at most 20 (Amazon SQS API reference, ReceiveMessage).
        :param visibility: seconds until a message that is neither deleted nor given back is delivered again.
        """
        with self._errors("receive messages"):
            answer = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait, VisibilityTimeout=visibility
            )
        return [
            QueueMessage(str(message.get("Body", "")), str(message["ReceiptHandle"]))
            for message in answer.get("Messages", [])
        ]

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages; one that could not be deleted is delivered again."""
        for batch in _entries(receipts):
            with self._errors("delete messages"):
                self._client.delete_message_batch(QueueUrl=self._url, Entries=batch)

    def give_back(self, receipts: Sequence[str], *, seconds: int) -> None:
        """Have messages delivered again after so many seconds."""
        for batch in _entries(receipts):
            with self._errors("return messages"):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._url, Entries=[{**entry, "VisibilityTimeout": seconds} for entry in batch]
                )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        words = f"{action} of the SQS queue {quoted(self._url)}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code.rpartition(".")[2] in _GONE:
                raise DefinitionError(
                    f"{self._hook.display_name}: the SQS queue {quoted(self._url)} does not exist; "
                    "correct queue_url, or create the queue"
                ) from error
            raise self._error(error, words) from error
        except (BotoCoreError, ValueError) as error:
            raise self._error(error, words) from error

    def _error(self, error: Exception, action: str) -> Exception:
        return s3_error(error, conn_id=self._hook.s3_conn_id, endpoint=self._url, action=action)


def _entries(receipts: Sequence[str]) -> Iterator[list[dict[str, object]]]:
    for start in range(0, len(receipts), BATCH):
        batch = receipts[start : start + BATCH]
        yield [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(batch)]


@dataclass(frozen=True)
class ListenRequest:
    """A signed request for a listen stream; good for some minutes."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    display_name: str


def listen_request(hook: OscarS3Hook, bucket: str, prefix: str = "") -> ListenRequest:
    """Sign the request that opens MinIO's stream of the objects created below a prefix.

    Source: MinIO, ``ListenNotificationHandler``: ``GET /bucket?prefix=&suffix=&events=``.

    :raises DefinitionError: if the connection has no endpoint, since Amazon's S3 has no such stream, or no keys.
    """
    settings = hook.settings
    if not settings.endpoint_url:
        raise DefinitionError(
            f"{hook.display_name} has no endpoint: Amazon's S3 has no listen stream; use an SQS queue"
        )
    query = urlencode({"events": _CREATED, "prefix": prefix, "suffix": ""}, quote_via=quote, safe="-_.~")
    url = f"{settings.endpoint_url}/{quote(bucket, safe='')}?{query}"
    keys = hook.keys()
    credentials: Any = (
        Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"])
        if keys
        else boto3.session.Session().get_credentials()
    )
    if credentials is None:
        raise DefinitionError(f"{hook.display_name}: there is no access key; set login and password")
    request = AWSRequest("GET", url)
    S3SigV4Auth(credentials, "s3", settings.region).add_auth(request)
    display_name = f"{hook.display_name} ({settings.endpoint_url}): listening to bucket {bucket!r}"
    return ListenRequest(url, dict(request.headers.items()), display_name)


def listen_client(hook: OscarS3Hook) -> httpx.AsyncClient:
    """Return a client for :func:`listen`; the caller closes it."""
    settings = hook.settings
    client = httpx.AsyncClient(
        verify=tls_context(settings.verify, conn_id=hook.s3_conn_id),
        cookies=cookie_jar(),
        timeout=httpx.Timeout(Silence(SILENCE), connect=settings.connect_timeout),
        follow_redirects=False,
    )
    return paced(client)


async def listen(client: httpx.AsyncClient, request: ListenRequest) -> AsyncGenerator[bytes, None]:
    """Yield the lines of the stream, and an empty one when it opens and at each sign of life.

    :raises TransientError: when the stream breaks off.
    :raises DefinitionError: if the store refuses it, or knows no such stream.
    """
    try:
        async with client.stream("GET", request.url, headers={**request.headers, **_PLAIN}) as answer:
            if answer.status_code != 200:
                raise _refused(answer.status_code, await _read_start(answer), request.display_name)
            if is_page(answer.headers):
                _checked(b"<html>", request.display_name)
            yield b""
            waiting = b""
            async for chunk in answer.aiter_bytes():
                *lines, waiting = (waiting + chunk).split(b"\n")
                waiting = waiting.lstrip()
                for line in lines:
                    yield _checked(line.strip(), request.display_name)
                if len(waiting) > _PAGE_BEGINS or _FIRST_TAG.match(waiting):
                    _checked(waiting[:_PAGE_BEGINS], request.display_name)
                if len(waiting) > LINE_LIMIT:
                    raise PermanentError(f"{request.display_name}: a line of the stream exceeds {LINE_LIMIT} bytes")
                yield b""
            _checked(waiting, request.display_name)
    except TRANSPORT_ERRORS as error:
        raise transport_error(error, display_name=request.display_name) from error
    raise TransientError(f"{request.display_name}: the store ended the stream")


def _checked(line: bytes, display_name: str) -> bytes:
    if is_page({}, line):
        raise TransientError(f"{display_name}: a page answered and not the store; check its endpoint, and any proxy")
    if line[:1] == b"<":
        raise DefinitionError(
            f"{display_name}: the store answered with XML and not with events, so it has no listen stream as MinIO "
            "does; remove notifications, or use the receiver in Airflow's API server"
        )
    if len(line) > LINE_LIMIT:
        raise PermanentError(f"{display_name}: a line of the stream exceeds {LINE_LIMIT} bytes")
    return line


async def _read_start(answer: httpx.Response) -> str:
    async for chunk in answer.aiter_bytes():
        return chunk[:1024].decode("utf-8", "replace")
    return ""


def _refused(status: int, body: str, display_name: str) -> Exception:
    reply = f"{status}: {quoted(sentence(body))}"
    if status < 300 or issubclass(error_class(status), TransientError):
        return TransientError(f"{display_name}: the store is busy or failing ({reply})")
    if status in (401, 403):
        return DefinitionError(
            f"{display_name}: refused ({reply}); the access key needs s3:ListenBucketNotification on the bucket"
        )
    if status == 404:
        return DefinitionError(f"{display_name}: no such bucket ({reply})")
    return DefinitionError(f"{display_name}: the store knows no listen stream ({reply}); remove notifications")
