# SPDX-License-Identifier: Apache-2.0
"""What every hook makes of connections that go wrong: silent, slow, cut, untrusted, or led around.

Each call ends by itself within its deadline, in an error that names the connection and may pass or says what to mend.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, PermanentError, TransientError
from airflow_provider_oscar.hooks.http.pace import Pace
from airflow_provider_oscar.hooks.interlink import hook as kubernetes_hook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.slurm import hook as slurm_hook
from tests.support.accepting import accept_all
from tests.support.every_call import SECRET, SYSTEMS, connection, no_pauses

#: Seconds between two bytes that clients wait here, and between those that slow servers send.
TIMEOUT, DRIP = 0.2, 0.02
#: Seconds after which a call that should have ended has not; a multiple of what all attempts take together.
PATIENCE = 60.0
#: One call of each system, and of each way in which a system is asked.
SOME = [
    ("s3", "list"), ("s3", "list by boto3"), ("s3", "put"), ("door", "list"), ("door", "stat"), ("frontend", "list"),
    ("oscar", "jobs"), ("kubernetes", "list pods"), ("slurm", "job"), ("rucio", "list files"), ("sqs", "receive"),
    ("minio", "listen"), ("web", "list"), ("onedata", "list spaces"), ("onedata", "list"),
]  # fmt: skip
some_calls = pytest.mark.parametrize(("system", "call"), SOME, ids=[" ".join(each) for each in SOME])


class Peer:
    """Accepts connections, and does with each what ``play`` says."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.play: Callable[[socket.socket], None] = lambda _: None
        self.over = threading.Event()
        self.heard = b""
        accept_all(self._socket, self._one)

    def _one(self, found: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(found)
            found.settimeout(PATIENCE)
            if self._context:
                found = stack.enter_context(self._context.wrap_socket(found, server_side=True))
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := found.recv(65536)):
                    return
                data += more
            self.heard += data
            self.play(found)

    def drip(self, found: socket.socket, data: bytes) -> None:
        """Send a byte now and then, until the client leaves or the test ends."""
        for position in range(len(data)):
            found.sendall(data[position : position + 1])
            if self.over.wait(DRIP):
                return

    def close(self) -> None:
        self.over.set()
        self._socket.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait a fifth of a second for a byte, and not at all between attempts."""
    no_pauses(monkeypatch)
    monkeypatch.setattr("airflow_provider_oscar.hooks.s3.notifications._LONGEST_WAIT", 0)
    wait_for(monkeypatch, TIMEOUT)


def wait_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let clients wait so long for a byte."""
    monkeypatch.setitem(kubernetes_hook._RAW, "_request_timeout", (seconds, seconds))
    monkeypatch.setattr(slurm_hook, "TIMEOUT", seconds)
    monkeypatch.setattr("airflow_provider_oscar.hooks.s3.notifications.SILENCE", seconds)
    monkeypatch.setattr("tests.support.every_call.EXTRA", {
        "connect_timeout": seconds, "read_timeout": seconds, "timeout": seconds,
    })  # fmt: skip


def outcome(url: str, system: str, call: str) -> OscarProviderError | object:
    """Return the error of ours that a call ends in, or what it returned; fails if it does not end."""
    found: list[OscarProviderError | object] = []

    def ask() -> None:
        try:
            found.append(SYSTEMS[system](url)[call]())
        except BaseException as error:  # noqa: BLE001 - shown by whoever looks
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, f"{system} {call} did not end within {PATIENCE:.0f} s"
    assert SECRET not in str(found[0])
    return found[0]


def assert_told(found: object, kind: type[OscarProviderError] = TransientError) -> None:
    """The error is of a kind, names the connection, and says something about what to do or what happened."""
    assert isinstance(found, kind), found
    assert "'c'" in str(found)
    assert len(str(found)) > 40


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@some_calls
def test_a_server_that_never_answers_is_given_up(peer: Peer, system: str, call: str) -> None:
    peer.play = lambda _: peer.over.wait() and None
    assert_told(outcome(peer.url, system, call))


@some_calls
def test_a_head_that_comes_a_byte_at_a_time_is_given_up(peer: Peer, system: str, call: str) -> None:
    peer.play = lambda found: peer.drip(found, HEAD + b"X-Long: " + b"x" * 100_000)
    if system == "minio":
        pytest.skip("its stream is silent by nature, and belongs to the event loop, where it holds nobody up")
    assert_told(outcome(peer.url, system, call))


@some_calls
@pytest.mark.parametrize("framing", ["length", "chunked", "until closed"])
def test_a_body_that_comes_a_byte_at_a_time_is_given_up(peer: Peer, system: str, call: str, framing: str) -> None:
    head = {"length": b"Content-Length: 100000\r\n\r\n", "chunked": b"Transfer-Encoding: chunked\r\n\r\n"}
    body = b"1\r\n \r\n" * 10_000 if framing == "chunked" else b" " * 100_000

    def play(found: socket.socket) -> None:
        found.sendall(HEAD + head.get(framing, b"Connection: close\r\n\r\n"))
        peer.drip(found, body)

    peer.play = play
    if system == "minio":
        pytest.skip("blanks are MinIO's sign of life")
    assert_told(outcome(peer.url, system, call))


ENDINGS = {
    "before a byte": b"",
    "within the status": b"HTTP/1.1 2",
    "within a header": HEAD + b"X-Long: xxxx",
    "after 100": b"HTTP/1.1 100 Continue\r\n",
    "within a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "an odd chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n{",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}",
    "a huge header": HEAD + b"X-Long: " + b"x" * 500_000 + b"\r\n\r\n",
    "many headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(2000)) + b"Content-Length: 9\r\n\r\n{",
    "HTTP/1.0, a page": b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>",
    "HTTP/0.9": b"<html></html>",
    "HTTP/9.9": b"HTTP/9.9 200 OK\r\nContent-Length: 9\r\n\r\n{",
}


@some_calls
def test_connections_that_end_early_or_speak_oddly_decide_nothing(peer: Peer, system: str, call: str) -> None:
    for name, answer in ENDINGS.items():
        if system == "web" and name == "HTTP/1.0, a page":
            continue  # which lists no file
        peer.play = lambda found, answer=answer: found.sendall(answer)  # type: ignore[misc]
        found = outcome(peer.url, system, call)
        final = isinstance(found, DefinitionError | PermanentError)
        assert isinstance(found, OscarProviderError), (name, found)
        assert not final, (name, found)
        assert "'c'" in str(found), name


@some_calls
def test_a_body_without_end_is_refused_and_not_kept(peer: Peer, system: str, call: str) -> None:
    def play(found: socket.socket) -> None:
        found.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
        while not peer.over.is_set():
            found.sendall(chunk)

    peer.play = play
    tracemalloc.start()
    try:
        found = outcome(peer.url, system, call)
        assert isinstance(found, OscarProviderError), found
        # An answer at its bound, and twice that while it is put together.
        assert tracemalloc.get_traced_memory()[1] < 3 * 512 * 1024 * 1024
    finally:
        tracemalloc.stop()


@some_calls
def test_a_chain_of_redirects_is_not_followed_with_credentials(peer: Peer, system: str, call: str) -> None:
    other, asked = Peer(), list[bytes]()
    try:
        other.play = lambda found: asked.append(b"asked")
        peer.play = lambda found: found.sendall(
            b"HTTP/1.1 301 M\r\nLocation: %s/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % other.url.encode()
        )
        found = outcome(peer.url, system, call)
        assert isinstance(found, OscarProviderError), found
        assert "'c'" in str(found)
        # A dCache door sends readers to its pools, and web servers where they like, without credentials; nothing else
        # follows.
        assert asked == [] or system in ("door", "web")
        assert b"authorization" not in other.heard.lower()
    finally:
        other.close()


@some_calls
def test_a_circle_of_redirects_ends(peer: Peer, system: str, call: str) -> None:
    peer.play = lambda found: found.sendall(
        b"HTTP/1.1 307 M\r\nLocation: %s/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % peer.url.encode()
    )
    assert isinstance(outcome(peer.url, system, call), OscarProviderError)


@some_calls
def test_a_name_that_does_not_resolve_and_a_closed_port_are_told(system: str, call: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "https://no-such-host.invalid"):
        assert_told(outcome(url, system, call))


@some_calls
@pytest.mark.parametrize("drips", [False, True], ids=["hangs", "drips"])
def test_a_tls_handshake_that_does_not_end_is_given_up(system: str, call: str, drips: bool) -> None:
    over = threading.Event()

    def shake(found: socket.socket) -> None:
        with found, contextlib.suppress(OSError):
            found.recv(65536)
            found.sendall(b"\x16\x03\x03\x40\x00" if drips else b"")  # a record of 16 KiB begins
            while not over.wait(DRIP):
                found.sendall(b"\0" if drips else b"")

    with socket.create_server(("127.0.0.1", 0)) as server:
        accept_all(server, shake)
        try:
            found = outcome(f"https://127.0.0.1:{server.getsockname()[1]}", system, call)
        finally:
            over.set()
    assert isinstance(found, TransientError | DefinitionError), found
    assert "'c'" in str(found)


def certificate(directory: Path, *, name: str = "127.0.0.1", days: int = 1) -> ssl.SSLContext:
    """A server's context with a certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    first = now - datetime.timedelta(days=10)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(first)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost" if name == "127.0.0.1" else name)]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(
    ("name", "days"), [("127.0.0.1", 1), ("127.0.0.1", -1), ("elsewhere.example", 1)], ids=["own", "expired", "another"]
)
@some_calls
def test_a_certificate_that_is_not_trusted_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, call: str, name: str, days: int
) -> None:
    wait_for(monkeypatch, PATIENCE / 2)  # a busy machine shakes hands slowly
    peer = Peer(certificate(tmp_path, name=name, days=days))
    try:
        found = outcome(peer.url, system, call)
        assert_told(found, DefinitionError)
        assert "certificate" in str(found)
        assert any(word in str(found) for word in ("verify", "kube config", "SSL_CERT_FILE")), found
    finally:
        peer.close()


@some_calls
def test_a_port_that_speaks_no_tls_is_told(peer: Peer, system: str, call: str) -> None:
    found = outcome(peer.url.replace("http:", "https:"), system, call)
    assert isinstance(found, TransientError | DefinitionError)
    assert "'c'" in str(found)


def test_an_upload_ends_though_the_server_breaks_off_its_word_to_go_on(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    peer.play = lambda found: found.sendall(b"HTTP/1.1 100 Continue\r\n")
    found: list[object] = []

    def ask() -> None:
        try:
            OscarS3Hook("c", connection=connection("oscar_s3", peer.url)).put_file("b", "k", path)
        except BaseException as error:  # noqa: BLE001
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "boto3 reads the rest of the interim answer for ever"
    assert_told(found[0])


def test_a_large_answer_may_take_its_time() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(1000):
        now[0] += 0.9
        assert pace.left(1.0) == 1.0
        pace.received(1024)
    now[0] += 200  # it came quicker than it had to
    assert pace.left(1.0) == 0.0
    pace.begin()
    assert pace.left(1.0) == 1.0
