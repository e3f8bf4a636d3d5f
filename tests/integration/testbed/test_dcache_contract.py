# SPDX-License-Identifier: Apache-2.0
"""Requests whose answers were recorded at a real dCache 12.0.1, sent to the embedded one.

With ``DCACHE_URL``, ``DCACHE_FRONTEND_URL``, ``DCACHE_USER`` and ``DCACHE_PASSWORD`` they go to that dCache instead,
below a directory of their own, which is removed at the end.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from oscar_testbed.fakes.dcache import LocalDCache

MD5_OF_SOMETHING_ELSE = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass(frozen=True)
class Case:
    """One request and the status that dCache 12.0.1 answers; ``{base}`` is the directory of the test.

    :param at: ``door`` or ``frontend`` (below ``/api/v1``).
    """

    name: str
    at: str
    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: object = None


CASES = [
    Case("put", "door", "PUT", "/new", 201, body=b"x"),
    Case("put where something is, unless it is", "door", "PUT", "/file", 412, (("If-None-Match", "*"),), b"x"),
    Case("put with a wrong adler32", "door", "PUT", "/new", 201, (("Digest", "adler32=00000000"),), b"x"),
    Case("put with a wrong MD5", "door", "PUT", "/new", 400, (("Content-MD5", MD5_OF_SOMETHING_ELSE),), b"x"),
    Case("put onto a directory", "door", "PUT", "/directory", 405, body=b"x"),
    Case("put below directories that are not there", "door", "PUT", "/n1/n2/file", 201, body=b"x"),
    Case("make a directory without parent", "door", "MKCOL", "/x/y/", 409),
    Case("make a directory that is there", "door", "MKCOL", "/directory/", 405),
    Case("move onto something by default", "door", "MOVE", "/file", 412, (("Destination", "{door}/other"),)),
    Case(
        "move onto something on request",
        "door",
        "MOVE",
        "/file",
        204,
        (("Destination", "{door}/other"), ("Overwrite", "T")),
    ),
    Case("head of nothing", "door", "HEAD", "/nothing", 404),
    Case("delete of nothing", "door", "DELETE", "/nothing", 404),
    Case("look at nothing", "frontend", "GET", "/namespace{base}/nothing", 404),
    Case(
        "make a directory that is there, by REST",
        "frontend",
        "POST",
        "/namespace{base}",
        400,
        body={"action": "mkdir", "name": "directory"},
    ),
    Case(
        "stage for a time that is none",
        "frontend",
        "POST",
        "/tape/stage",
        400,
        body={"files": [{"path": "{base}/file", "diskLifetime": "1 day"}]},
    ),
    Case(
        "stage more than 500 files",
        "frontend",
        "POST",
        "/tape/stage",
        413,
        body={"files": [{"path": f"{{base}}/f{number}"} for number in range(501)]},
    ),
]


@dataclass(frozen=True)
class Site:
    """Where the requests go.

    :param door: URL of the directory of the test at the WebDAV door.
    :param frontend: URL up to ``/api/v1``.
    :param base: path of that directory.
    """

    door: str
    frontend: str
    base: str
    client: httpx.Client


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    base = f"/contract-{uuid.uuid4().hex[:12]}"
    embedded: LocalDCache | None = None
    if url := os.environ.get("DCACHE_URL"):
        door, frontend = url.rstrip("/"), os.environ["DCACHE_FRONTEND_URL"].rstrip("/")
        login = os.environ["DCACHE_USER"], os.environ["DCACHE_PASSWORD"]
    else:
        embedded = LocalDCache(tmp_path)
        embedded.start()
        door, frontend, login = embedded.webdav_url, embedded.frontend_url, (embedded.user, embedded.password)
    try:
        with httpx.Client(auth=login, timeout=60) as client:
            for method, path in (("MKCOL", "/"), ("MKCOL", "/directory/"), ("PUT", "/file"), ("PUT", "/other")):
                answer = client.request(method, f"{door}{base}{path}", content=b"1" if method == "PUT" else b"")
                assert answer.status_code == 201
            yield Site(f"{door}{base}", f"{frontend}/api/v1", base, client)
            client.request("DELETE", f"{door}{base}/")
    finally:
        if embedded is not None:
            embedded.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answer_is_that_of_dcache(site: Site, case: Case):
    def filled(text: str) -> str:
        return text.replace("{base}", site.base).replace("{door}", site.door)

    url = filled((site.door if case.at == "door" else site.frontend) + case.path)
    headers = {name: filled(value) for name, value in case.headers}
    body = case.body if isinstance(case.body, bytes) else filled(json.dumps(case.body)).encode() if case.body else b""
    if not isinstance(case.body, bytes | None):
        headers["Content-Type"] = "application/json"
    answer = site.client.request(case.method, url, headers=headers, content=body)
    assert answer.status_code == case.status


def test_answer_to_head_has_no_body_so_that_the_connection_goes_on(site: Site):
    assert site.client.head(f"{site.door}/nothing").status_code == 404
    assert site.client.get(f"{site.door}/file", follow_redirects=True).content == b"1"


def test_names_that_begin_with_a_dot_are_listed(site: Site):
    site.client.put(f"{site.door}/.hidden", content=b"x")
    answer = site.client.get(f"{site.frontend}/namespace{site.base}", params={"children": "true"})
    assert ".hidden" in [child["fileName"] for child in answer.json()["children"]]


def test_limits_of_events_are_not_for_everybody(site: Site):
    assert httpx.get(f"{site.frontend}/events", headers={"X-Forwarded-For": "10.1.1.1"}).status_code == 401
