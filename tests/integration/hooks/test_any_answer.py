# SPDX-License-Identifier: Apache-2.0
"""What every hook makes of answers that no client hopes for: of proxies, of servers that restart, of strangers.

One bad answer never decides, and none is taken for an absence, an empty listing, an object, or a write that was made.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from airflow_provider_oscar.core.errors import (
    AccessError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from tests.support.every_call import SECRET, SYSTEMS, Server, http, no_pauses

JSON, XML, HTML = "application/json", "application/xml", "text/html"
PAGE = b"<html><head><title>Sign in</title></head><body>x</body></html>"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


#: What none of the systems ever says, so that it is an error for every call, and never a final one.
NOT_THEIRS = {
    "a page": http(200, PAGE, HTML),
    "a page of XML": http(200, b'<?xml version="1.0"?>' + PAGE, XML),
    "a page, 206": http(206, PAGE, HTML),
    "a page of a file": http(200, PAGE, HTML, ETag='"5f-1"', Last_Modified="Sun, 22 Nov 2026 08:59:59 GMT"),
    "no answer": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "cut": http(200, b'{"items": [], "a"', JSON, length=5000),
    "not compressed": http(200, b"{}", JSON, Content_Encoding="gzip"),
    "sent away for now": http(302, Location="https://login.example/?code=hush-hush-secret"),
    "sent nowhere": http(302),
    "later, in seconds": http(429, Retry_After="7"),
    "later, in words": http(429, Retry_After="soon"),
    "later, in the past": http(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"),
    "later, negative": http(429, Retry_After="-5"),
    "later, for ages": http(429, Retry_After="9" * 30),
    "too early": http(425),
    "locked": http(423),
    "slow": http(408),
    "broken, a page": http(502, PAGE, HTML),
    "away": http(503, Retry_After="3"),
    "gateway": http(504, PAGE, HTML),
    "full": http(507),
    "unknown": http(599),
}
#: JSON that a proxy or another API says with 200.
OTHER_JSON = {
    "nothing": http(200, b"null", JSON),
    "a text": http(200, b'"x"', JSON),
    "a list": http(200, b"[]", JSON),
    "an error": http(200, b'{"error": "maintenance"}', JSON),
    "a refusal": http(200, b'{"kind": "Status", "status": "Failure", "code": 500}', JSON),
    "cut JSON": http(200, b'{"name": "hush-hush-secret", "items": [', JSON),
    "deep": http(200, b"[" * 100_000, JSON),
    "a long number": http(200, b'{"items": ' + b"9" * 10_000, JSON),
    "bytes": http(200, b"\xff\xfe\x00", JSON),
}
#: What is not there, by the word of something that does not know.
NOT_THEIR_404 = {
    "a page, 404": http(404, PAGE, HTML),
    "a proxy's 404": http(404, b"404 page not found", "text/plain"),
}
CALLS = [(system, call) for system, calls in SYSTEMS.items() for call in calls("http://127.0.0.1:9")]
#: Systems whose answers are JSON, and the calls whose answers nobody reads.
JSON_CALLS = [
    (system, call)
    for system, call in CALLS
    if system in ("frontend", "oscar", "kubernetes", "slurm", "onedata") and not call.startswith(("delete", "cancel"))
]
every_call = pytest.mark.parametrize(("system", "call"), CALLS, ids=[" ".join(each) for each in CALLS])
every_json_call = pytest.mark.parametrize(("system", "call"), JSON_CALLS, ids=[" ".join(each) for each in JSON_CALLS])


def outcomes(server: Server, system: str, call: str, answers: dict[str, bytes]) -> dict[str, OscarProviderError | str]:
    """Return the errors of ours that a call ends in, or what it returned, by the name of the answer."""
    ask, found = SYSTEMS[system](server.url)[call], dict[str, OscarProviderError | str]()
    for name, server.answer in answers.items():
        try:
            found[name] = repr(ask())
        except OscarProviderError as error:
            found[name] = error
        assert SECRET not in str(found[name])
    return found


def outcome(server: Server, system: str, call: str, answer: bytes) -> OscarProviderError | str:
    """Return what one answer leads to."""
    return outcomes(server, system, call, {"": answer})[""]


def judged(server: Server, system: str, call: str, answers: dict[str, bytes]) -> dict[str, str]:
    """Return those answers that were taken for a result, or for a fault that no repetition mends."""
    wrong = {}
    for name, found in outcomes(server, system, call, answers).items():
        final = isinstance(found, (DefinitionError, PermanentError)) and not isinstance(found, AccessError)
        if isinstance(found, str) or final:
            wrong[name] = f"{type(found).__name__}: {found}"
    return wrong


def theirs(system: str, call: str) -> set[str]:
    """Return the answers that are one of this system after all: files of a web server may be pages, as listings are."""
    if system != "web":
        return set()
    pages = {"a page", "a page, 206", "a page of a file"}
    return pages if call == "list" else {*pages, "a page of XML", "cut", "not compressed"}


@every_call
def test_no_answer_of_something_else_is_a_result_or_final(server: Server, system: str, call: str) -> None:
    wrong = judged(
        server, system, call, {name: NOT_THEIRS[name] for name in NOT_THEIRS if name not in theirs(system, call)}
    )
    if (system, call) == ("door", "macaroon"):
        # What a server without macaroons says is not known; jobs are then given other access, or that is said.
        wrong = {name: why for name, why in wrong.items() if not why.startswith("MacaroonsUnsupported")}
    if system == "sqs":
        # boto3 never asks SQS for anything compressed, reads what comes, and finds an answer of SQS there.
        wrong.pop("not compressed", None)
    assert wrong == {}


@every_json_call
def test_other_json_is_not_a_result(server: Server, system: str, call: str) -> None:
    assert judged(server, system, call, OTHER_JSON) == {}


@pytest.mark.parametrize(
    ("system", "call"),
    [("s3", "list"), ("s3", "read"), ("s3", "put"), ("oscar", "delete a job"), ("oscar", "delete a service"),
     ("kubernetes", "read a pod"), ("kubernetes", "create a pod"), ("slurm", "job"), ("slurm", "cancel")],
)  # fmt: skip
def test_a_proxy_does_not_know_that_something_is_not_there(server: Server, system: str, call: str) -> None:
    for answer in NOT_THEIR_404.values():
        assert isinstance(outcome(server, system, call, answer), OscarProviderError)


@pytest.mark.parametrize(
    ("system", "call"), [each for each in CALLS if each[0] in ("s3", "door", "frontend")],
    ids=[" ".join(each) for each in CALLS if each[0] in ("s3", "door", "frontend")],
)  # fmt: skip
def test_a_proxy_does_not_know_what_a_store_has(server: Server, system: str, call: str) -> None:
    """An object that is gone makes its run fail for good, and a result that is not there makes its job run twice."""
    assert judged(server, system, call, NOT_THEIR_404) == {}


@every_call
def test_a_bomb_is_refused_within_bounds(server: Server, system: str, call: str) -> None:
    bomb = http(200, gzip.compress(b" " * (80 * 1024 * 1024), 9), JSON, Content_Encoding="gzip")
    found = outcome(server, system, call, bomb)
    if not call.startswith(("delete", "cancel", "put", "move", "make", "head", "read")):
        assert isinstance(found, OscarProviderError)


STATUSES = (301, 308, 400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 500, 501, 520, 999)


@every_call
def test_no_status_ends_in_an_error_that_is_not_ours(server: Server, system: str, call: str) -> None:
    outcomes(server, system, call, {str(status): http(status) for status in STATUSES})
    outcomes(server, system, call, {str(status): http(status, b'[{"error": null}]', JSON) for status in STATUSES})
    told = {"Location": f"ftp://u:{SECRET}@h/"}
    outcomes(
        server, system, call, {str(status): http(status, b'{"message": "x"}', JSON, **told) for status in STATUSES}
    )


@pytest.mark.parametrize(
    ("answer", "delay"),
    [("later, in seconds", 7.0), ("away", 3.0), ("later, for ages", None), ("later, negative", None)],
)
@pytest.mark.parametrize(("system", "call"), [("s3", "head"), ("oscar", "jobs")])
def test_the_time_that_a_server_asks_for_is_kept_within_reason(
    server: Server, system: str, call: str, answer: str, delay: float | None
) -> None:
    found = outcome(server, system, call, NOT_THEIRS[answer])
    assert isinstance(found, TransientError)
    assert found.delay == delay


def test_an_object_that_is_cut_short_is_not_read_as_a_shorter_one(server: Server) -> None:
    cut = http(200, b'{"a"', "binary/octet-stream", length=5000, ETag='"e"')
    assert isinstance(outcome(server, "s3", "read", cut), TransientError)
