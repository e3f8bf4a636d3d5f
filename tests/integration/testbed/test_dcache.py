# SPDX-License-Identifier: Apache-2.0
"""The embedded dCache over HTTP, as its clients see it."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from oscar_testbed.fakes.dcache import LocalDCache

PROPFIND = (
    '<D:propfind xmlns:D="DAV:" xmlns:c="http://www.dcache.org/2013/webdav" '
    'xmlns:s="http://srm.lbl.gov/StorageResourceManager"><D:prop><D:getetag/><D:getcontentlength/>'
    "<c:Checksums/><s:FileLocality/></D:prop></D:propfind>"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDCache]:
    dcache = LocalDCache(tmp_path_factory.mktemp("dcache"))
    dcache.start()
    yield dcache
    dcache.stop()


@pytest.fixture
def dcache(running: LocalDCache) -> Iterator[LocalDCache]:
    running.faults.clear()
    running.namespace.mkdir("/in")
    yield running
    running.faults.clear()
    running.namespace.delete("/in", recursive=True)


@pytest.fixture
def client(dcache: LocalDCache) -> Iterator[httpx.Client]:
    with httpx.Client(auth=(dcache.user, dcache.password), timeout=10) as client:
        yield client


def _api(dcache: LocalDCache, path: str) -> str:
    return f"{dcache.frontend_url}/api/v1{path}"


class Stream:
    """An SSE client in a thread."""

    def __init__(self, dcache: LocalDCache, channel: str, last_id: str = "") -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self._auth = (dcache.user, dcache.password)
        self._headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        self.opened = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(channel,), daemon=True)
        self._thread.start()
        assert self.opened.wait(120)

    def _read(self, channel: str) -> None:
        try:
            with httpx.stream("GET", channel, headers=self._headers, auth=self._auth, timeout=20) as answer:
                self.opened.set()
                for line in answer.iter_lines():
                    self.lines.put(line)
        finally:
            self.lines.put(None)

    def until(self, wanted: Callable[[str], bool]) -> str:
        """The next line that satisfies ``wanted``."""
        while (line := self.lines.get(timeout=120)) is not None:
            if wanted(line):
                return line
        raise AssertionError("the stream ended first")

    def ended(self) -> bool:
        """Read to the end of the stream."""
        while self.lines.get(timeout=120) is not None:
            pass
        return True


def _channel(dcache: LocalDCache, client: httpx.Client) -> str:
    answer = client.post(_api(dcache, "/events/channels"), json={"client-id": "test"})
    assert answer.status_code == 201
    return answer.headers["location"]


def test_a_file_goes_up_and_comes_down_with_its_checksum(dcache: LocalDCache, client: httpx.Client):
    url = f"{dcache.webdav_url}/in/sp%20ace%2B%C3%BC%25.bin"
    up = client.put(url, content=b"hello world", headers={"Want-Digest": "adler32"})
    assert (up.status_code, up.headers["digest"]) == (201, "adler32=1a0b045d")
    headers = {"Want-Digest": "adler32", "Range": "bytes=6-"}
    down = client.get(url, headers=headers, follow_redirects=True)
    assert (down.status_code, down.content, down.headers["digest"]) == (206, b"world", "adler32=1a0b045d")
    assert "etag" not in down.headers
    assert client.head(url).headers["etag"] == up.headers["etag"]
    assert dcache.namespace.require("/in/sp ace+ü%.bin").size == 11


def test_a_stream_of_unknown_length_can_be_uploaded(dcache: LocalDCache, client: httpx.Client):
    assert client.put(f"{dcache.webdav_url}/in/new/dir/a", content=iter([b"ab", b"cd"])).status_code == 201
    assert dcache.namespace.require("/in/new/dir/a").size == 4


def test_a_broken_promise_about_the_checksum_is_400(dcache: LocalDCache, client: httpx.Client):
    headers = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert client.put(f"{dcache.webdav_url}/in/a", content=b"x", headers=headers).status_code == 400
    assert dcache.namespace.stat("/in/a") is None


def test_an_upload_that_is_cut_leaves_nothing_or_an_entry_without_size(dcache: LocalDCache, client: httpx.Client):
    for keep in (False, True):
        dcache.faults.keep_partial_uploads = keep
        with socket.create_connection((urlsplit(dcache.webdav_url).hostname, urlsplit(dcache.webdav_url).port)) as raw:
            request = client.build_request("PUT", f"{dcache.webdav_url}/in/cut{keep}", content=b"")
            login = next(client.auth.auth_flow(request)).headers["authorization"] if client.auth else ""
            head = f"PUT /in/cut{keep} HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\nContent-Length: 100\r\n\r\nhalf"
            raw.sendall(head.encode())
            deadline = time.monotonic() + 10
            while dcache.namespace.stat(f"/in/cut{keep}") is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert dcache.namespace.require(f"/in/cut{keep}").size is None
        deadline = time.monotonic() + 10
        while not keep and dcache.namespace.stat("/in/cutFalse") and time.monotonic() < deadline:
            time.sleep(0.01)
    assert dcache.namespace.stat("/in/cutFalse") is None
    assert dcache.namespace.require("/in/cutTrue").locality == "NONE"


def test_a_file_being_written_is_listed_without_size(dcache: LocalDCache, client: httpx.Client):
    with dcache.begin_upload("/in/half") as upload:
        upload.write(b"x")
        answer = client.request("PROPFIND", f"{dcache.webdav_url}/in", content=PROPFIND, headers={"Depth": "1"})
        entry = answer.text.split("/in/half")[1]
        assert "NONE" in entry
        assert "<d:getcontentlength/>" in entry
        listing = client.get(_api(dcache, "/namespace/in?children=true&locality=true")).json()["children"][0]
        assert "size" not in listing
        assert listing["fileLocality"] == "NONE"
        assert client.get(f"{dcache.webdav_url}/in/half").status_code == 409


def test_an_upload_shows_up_in_the_event_stream(dcache: LocalDCache, client: httpx.Client):
    channel = _channel(dcache, client)
    stream = Stream(dcache, channel)
    selector = {"path": "/in", "flags": ["IN_CLOSE_WRITE", "IN_MOVED_TO"]}
    first = client.post(f"{channel}/subscriptions/inotify", json=selector)
    again = client.post(f"{channel}/subscriptions/inotify", json=selector)
    assert (first.status_code, again.status_code) == (201, 303)
    look = client.get(again.headers["location"])
    slash = "%2F" in again.headers["location"]  # such an id nobody finds, as in dCache
    assert (look.status_code, look.json().get("flags")) == ((404, None) if slash else (200, selector["flags"]))
    client.put(f"{dcache.webdav_url}/in/a.part", content=b"x")
    move = client.request(
        "MOVE", f"{dcache.webdav_url}/in/a.part", headers={"Destination": f"{dcache.webdav_url}/in/a"}
    )
    assert move.status_code == 201
    closed = json.loads(stream.until(lambda line: '"IN_CLOSE_WRITE"' in line).removeprefix("data: "))
    moved = json.loads(stream.until(lambda line: '"IN_MOVED_TO"' in line).removeprefix("data: "))
    assert closed["event"]["name"] == "a.part"
    assert moved["event"]["name"] == "a"
    assert moved["subscription"] == first.headers["location"]
    client.delete(channel)
    assert stream.ended()


def test_a_dropped_stream_resumes_where_it_was(dcache: LocalDCache, client: httpx.Client):
    channel = _channel(dcache, client)
    stream = Stream(dcache, channel)
    client.post(f"{channel}/subscriptions/inotify", json={"path": "/in", "flags": ["IN_CREATE"]})
    dcache.put("/in/a", b"")
    last = stream.until(lambda line: line.startswith("id: ")).removeprefix("id: ")
    dcache.drop_event_streams()
    assert stream.ended()
    dcache.put("/in/b", b"")
    assert '"b"' in Stream(dcache, channel, last).until(lambda line: "IN_CREATE" in line)
    client.delete(channel)


def test_a_restarted_frontend_has_forgotten_its_channels(dcache: LocalDCache, client: httpx.Client):
    channel = _channel(dcache, client)
    stream = Stream(dcache, channel)
    before = dcache.frontend_url
    dcache.restart_frontend(announce=True)
    assert stream.until(lambda line: "SHUTDOWN" in line)
    assert dcache.frontend_url == before
    with httpx.Client(auth=(dcache.user, dcache.password)) as fresh:
        answer = fresh.get(channel, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (404, "404")


def test_three_bad_logins_are_answered_429_by_the_part_that_saw_them(dcache: LocalDCache, client: httpx.Client):
    stranger = {"X-Forwarded-For": "10.9.8.7"}
    codes = [httpx.get(_api(dcache, "/user"), headers=stranger).status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    limited = httpx.get(_api(dcache, "/user"), headers=stranger)
    assert limited.text == "Server is busy. Please try again later."
    assert int(limited.headers["retry-after"]) <= 11
    assert httpx.request("PROPFIND", f"{dcache.webdav_url}/in", headers=stranger).status_code == 401
    assert client.get(_api(dcache, "/user")).status_code == 200


def test_a_macaroon_opens_one_path_for_one_purpose(dcache: LocalDCache, client: httpx.Client):
    dcache.put("/in/a", b"data")
    dcache.put("/in/b", b"data")
    answer = client.post(
        f"{dcache.webdav_url}/in/a",
        content=json.dumps({"caveats": ["activity:DOWNLOAD,READ_METADATA"], "validity": "PT1H"}),
        headers={"Content-Type": "application/macaroon-request"},
    )
    bearer = {"Authorization": f"Bearer {answer.json()['macaroon']}"}
    assert httpx.get(f"{dcache.webdav_url}/in/a", headers=bearer, follow_redirects=True).content == b"data"
    assert httpx.get(f"{dcache.webdav_url}/in/b", headers=bearer).status_code == 403
    assert httpx.put(f"{dcache.webdav_url}/in/a", headers=bearer, content=b"").status_code == 403
    assert httpx.delete(f"{dcache.webdav_url}/in/a", headers=bearer).status_code == 403
    assert httpx.get(_api(dcache, "/namespace/in?children=true"), headers=bearer).status_code == 403


def test_a_pool_serves_once_and_then_leads_back_to_the_door(dcache: LocalDCache, client: httpx.Client):
    dcache.put("/in/a", b"data")
    answer = client.get(f"{dcache.webdav_url}/in/a")
    assert answer.status_code == 302
    assert urlsplit(answer.headers["location"]).port != urlsplit(dcache.webdav_url).port
    assert httpx.get(answer.headers["location"]).content == b"data"
    again = httpx.get(answer.headers["location"])
    assert (again.status_code, again.headers["location"]) == (307, f"{dcache.webdav_url}/in/a")


def test_two_requests_on_one_connection_are_told_apart(dcache: LocalDCache, client: httpx.Client):
    """An answer to HEAD with a body, or a reason in the wrong place, would break the next answer."""
    dcache.put("/in/a", b"data")
    for path, status in (("/in/none", 404), ("/in/a", 200), ("/in/", 200), ("/in", 302), ("/in/none", 404)):
        assert client.head(f"{dcache.webdav_url}{path}").status_code == status
    login = client.auth
    client.auth = None
    refused = client.get(f"{dcache.webdav_url}/in/a", headers={"X-Forwarded-For": "10.3.3.3"})
    client.auth = login
    assert (refused.status_code, refused.reason_phrase, refused.content) == (401, "login failed", b"")
    assert "oscar" not in str(refused.headers)
    assert client.get(f"{dcache.webdav_url}/in/a", follow_redirects=True).content == b"data"


def test_a_directory_that_may_not_be_listed_looks_empty_at_the_door_alone(dcache: LocalDCache, client: httpx.Client):
    dcache.put("/in/private/a", b"x")
    dcache.namespace.forbid("/in/private")
    url = f"{dcache.webdav_url}/in/private/"
    assert client.request("PROPFIND", url, content=PROPFIND, headers={"Depth": "1"}).text.count("<d:response>") == 1
    assert client.get(url).status_code == 403
    assert client.get(_api(dcache, "/namespace/in/private?children=true")).status_code == 403


def test_faults_may_strike_one_part(dcache: LocalDCache, client: httpx.Client):
    with dcache.faults.during(only="frontend", fail_next=2):
        assert client.head(f"{dcache.webdav_url}/in/").status_code == 200
        assert client.get(_api(dcache, "/user")).status_code == 503


def test_listing_faults_strike_as_often_as_asked(dcache: LocalDCache, client: httpx.Client):
    for number in range(5):
        dcache.put(f"/in/{number}", b"")

    def propfind() -> str:
        answer = client.request("PROPFIND", f"{dcache.webdav_url}/in", content=PROPFIND, headers={"Depth": "1"})
        assert answer.status_code == 207
        return answer.text

    with dcache.faults.during(empty_propfind=1):
        assert propfind().count("<d:response>") == 1
        assert propfind().count("<d:response>") == 6
    with dcache.faults.during(truncate_listings=2):
        assert not propfind().rstrip().endswith("multistatus>")
        with pytest.raises(json.JSONDecodeError):
            client.get(_api(dcache, "/namespace/in?children=true")).json()
    with dcache.faults.during(listing_failures=1):
        assert client.get(_api(dcache, "/namespace/in?children=true")).status_code == 500
    with dcache.faults.during(fail_next=1, fail_status=502):
        assert [client.get(_api(dcache, "/user")).status_code for _ in range(2)] == [502, 200]
    with dcache.faults.during(throttle_next=1):
        assert client.get(_api(dcache, "/user")).headers["retry-after"] == "1"


def test_pages_may_overlap_and_miss(dcache: LocalDCache, client: httpx.Client):
    for number in range(40):
        dcache.put(f"/in/{number}", b"")

    def names() -> list[str]:
        found: list[str] = []
        for offset in range(0, 40, 10):
            answer = client.get(_api(dcache, f"/namespace/in?children=true&limit=10&offset={offset}"))
            found += [each["fileName"] for each in answer.json()["children"]]
        return found

    assert len(set(names())) == 40
    with dcache.faults.during(overlapping_pages=True):
        assert len(set(names())) < 40
    assert client.get(_api(dcache, "/namespace/in?children=true&limit=-1")).status_code == 400


def test_the_namespace_acts(dcache: LocalDCache, client: httpx.Client):
    dcache.put("/in/a", b"x")

    def act(path: str, **body: object) -> int:
        return client.post(_api(dcache, f"/namespace{path}"), json=body).status_code

    assert act("/in", action="mkdir", name="sub") == 201
    assert act("/in/a", action="mv", destination="/in/sub/b") == 201
    assert act("/in/sub/b", action="set-xattr", mode="CREATE", attributes={"done": "1"}) == 201
    assert act("/in/sub/b", action="set-xattr", mode="CREATE", attributes={"done": "2"}) == 409
    assert act("/in/sub/b", action="dance") == 400
    assert act("/in/none", action="mv", destination="/x") == 404
    found = client.get(_api(dcache, "/namespace/in/sub/b?xattr=true&checksum=true")).json()
    assert found["extendedAttributes"] == {"done": "1"}
    assert client.get(_api(dcache, f"/id/{found['pnfsId']}")).status_code == 403


def test_a_file_on_tape_is_brought_online_when_asked(dcache: LocalDCache, client: httpx.Client):
    dcache.put("/in/cold", b"frozen", locality="NEARLINE")
    where = _api(dcache, "/namespace/in/cold?locality=true")
    assert client.get(where).json()["fileLocality"] == "NEARLINE"
    asked = client.post(_api(dcache, "/tape/stage"), json={"files": [{"path": "/in/cold"}, {"path": "/in/none"}]})
    assert asked.status_code == 201
    deadline = time.monotonic() + 10
    while "completedAt" not in (state := client.get(asked.headers["location"]).json()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert {each["path"]: each["state"] for each in state["files"]} == {"/in/cold": "COMPLETED", "/in/none": "FAILED"}
    assert client.get(where).json()["fileLocality"] == "ONLINE_AND_NEARLINE"
    assert client.get(f"{dcache.webdav_url}/in/cold", follow_redirects=True).content == b"frozen"


def test_everything_is_there_after_a_stop_and_a_start(tmp_path: Path):
    dcache = LocalDCache(tmp_path)
    dcache.start()
    before = (dcache.webdav_url, dcache.frontend_url, dcache.password)
    dcache.put("/in/a", b"kept")
    dcache.stop()
    dcache.stop()
    assert not dcache.healthy()
    dcache.start()
    assert (dcache.webdav_url, dcache.frontend_url, dcache.password) == before
    login = (dcache.user, dcache.password)
    assert httpx.get(f"{dcache.webdav_url}/in/a", auth=login, follow_redirects=True).content == b"kept"
    dcache.stop()


def test_no_credential_is_logged(dcache: LocalDCache, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", logger="airflow_provider_oscar")
    httpx.get(_api(dcache, "/user"), auth=(dcache.user, dcache.password))
    assert dcache.password not in caplog.text
