# SPDX-License-Identifier: Apache-2.0
"""Parts of the stack that need no stack: images, their registry, the way in for pods."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tarfile
from hashlib import sha256

import httpx
import pytest
from oscar_testbed.fakes.interlink import install_runtime
from oscar_testbed.fakes.interlink.runtime import find_image
from oscar_testbed.images import LocalImage
from oscar_testbed.process import LOOPBACK
from oscar_testbed.real.base import run
from oscar_testbed.real.loopback_forwarder import LoopbackForwarder
from oscar_testbed.real.oci import Registry, write_layout
from oscar_testbed.real.runtime import add_image
from oscar_testbed.webserver import AsgiServer


@contextlib.contextmanager
def started(part):
    part.start()
    try:
        yield part
    finally:
        part.stop()


@pytest.fixture
def layout(tmp_path):
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "hello").write_text("echo hello\n")
    target = tmp_path / "layout"
    write_layout(root, target, environment={"PATH": "/bin"}, command=["hello"])
    return target


def test_registry_serves_an_image_by_tag_and_by_digest(layout):
    with started(Registry({"payload": layout})) as registry, httpx.Client() as client:
        host, _, name = registry.reference("payload").partition("/")
        base = f"http://{host}/v2/{name.removesuffix(':1')}"
        by_tag = client.get(f"{base}/manifests/1")
        digest = by_tag.headers["Docker-Content-Digest"]
        assert digest == f"sha256:{sha256(by_tag.content).hexdigest()}"
        assert client.get(f"{base}/manifests/{digest}").content == by_tag.content
        config = client.get(f"{base}/blobs/{by_tag.json()['config']['digest']}").json()
        layer = by_tag.json()["layers"][0]
        assert config["config"] == {"Env": ["PATH=/bin"], "Cmd": ["hello"]}
        assert config["rootfs"]["diff_ids"] == [layer["digest"]]
        assert client.head(f"{base}/blobs/{layer['digest']}").headers["Content-Length"] == str(layer["size"])


@pytest.mark.parametrize("path", ["other/manifests/1", "payload/blobs/sha256:00", "payload/manifests/sha256:00"])
def test_registry_does_not_know_the_rest(layout, path):
    with started(Registry({"payload": layout})) as registry:
        host = registry.reference("payload").partition("/")[0]
        assert httpx.get(f"http://{host}/v2/{path}").status_code == 404


def test_files_of_a_layer_belong_to_root(layout):
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    blobs = layout / "blobs"
    layer = json.loads((blobs / manifest.replace(":", "/")).read_text())["layers"][0]["digest"]
    with tarfile.open(blobs / layer.replace(":", "/")) as tar:
        assert {(entry.uid, entry.gid) for entry in tar} == {(0, 0)}
        assert "./bin/hello" in tar.getnames()


async def _answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def test_loopback_forwarder_lets_its_network_in():
    server = AsgiServer(_answer)
    with started(server), started(LoopbackForwarder(LOOPBACK, "127.0.0.0/8")) as forwarder:
        assert httpx.get(f"http://{forwarder.admit(server.port)}/").text == "inside"


def test_loopback_forwarder_turns_others_away():
    server = AsgiServer(_answer)
    with started(server), started(LoopbackForwarder(LOOPBACK)) as forwarder:
        host, _, port = forwarder.admit(server.port).partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""


@pytest.mark.parametrize("size", [0, 3_000_000], ids=["small", "large"])
def test_loopback_forwarder_speaks_tls_with_a_server_whose_authority_pods_do_not_know(tmp_path, size):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    run(["openssl", "req", *words])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = AsgiServer(_echo, ssl=context)
    known = ssl.create_default_context(cafile=str(certificate))
    with started(server), started(LoopbackForwarder(LOOPBACK, "127.0.0.0/8")) as forwarder:
        url = f"http://{forwarder.admit(server.port, known)}/"
        for _ in range(2):  # the client goes away between them, and the forwarder with it
            assert httpx.post(url, content=b"x" * size).content == b"x" * size


async def _echo(scope, receive, send):
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message["body"], message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": content})


def test_loopback_forwarder_closes_what_is_open_when_it_stops():
    with socket.create_server((LOOPBACK, 0)) as behind:
        forwarder = LoopbackForwarder(LOOPBACK, "127.0.0.0/8")
        with started(forwarder):
            host, _, port = forwarder.admit(behind.getsockname()[1]).partition(":")
            connection = socket.create_connection((host, int(port)), timeout=5)
            behind.accept()[0].close()
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert not forwarder.healthy()


def test_image_is_made_known_to_a_runtime_that_is_in_use(tmp_path):
    install_runtime(tmp_path, {"first:1": LocalImage("first:1")})
    images = tmp_path / "images.json"
    add_image(images, "second:1", tmp_path / "root", LocalImage("second:1", [tmp_path / "bin"], {"A": "1"}))
    known = json.loads(images.read_text())
    assert find_image(known, "docker://second:1") == {"path": [str(tmp_path / "bin")], "environment": {"A": "1"}}
    assert "first:1" in known


def test_image_of_apptainer_is_its_root_file_system(tmp_path):
    images = tmp_path / "apptainer-images.json"
    images.write_text("{}")
    add_image(images, "second:1", tmp_path / "root", LocalImage("second:1"))
    assert json.loads(images.read_text()) == {"second:1": str(tmp_path / "root")}
