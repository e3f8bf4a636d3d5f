# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar hub`` against a small server that answers as GitHub's contents API, also as a hostile one."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.oscar.hub import Crate, Hub
from tests.support.command_line import parser
from tests.support.handlers import QuietHandler, serving
from tests.support.oscar_faults import connected_oscar

FDL = """\
functions:
  oscar:
  - oscar-cluster:
      name: moo
      image: ghcr.io/grycap/cowsay
      script: script.sh
"""


def crate(**root):
    whole = {"@id": "./", "name": "Moo", "version": "1.0", "serviceType": "synchronous", **root}
    whole.setdefault("hasPart", [{"@id": "fdl.yml"}, {"@id": "script.sh"}])
    return json.dumps({"@graph": [{"@id": "ro-crate-metadata.json"}, whole]}).encode()


class Repository:
    """Files by path, over HTTP; ``asked`` keeps what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {
            "cowsay/ro-crate-metadata.json": crate(),
            "cowsay/fdl.yml": FDL.encode(),
            "cowsay/script.sh": b"#!/bin/sh\ncowsay\n",
        }
        self.folders = ["cowsay"]
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def hub():
    repository = Repository()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            repository.asked.append(self.path)
            path = urlsplit(self.path).path.removeprefix("/contents/crates").strip("/")
            status, headers, body = 404, {}, b'{"message": "Not Found"}'
            if repository.answer is not None:
                status, headers, body = repository.answer
            elif not path:
                entry = {"type": "dir", "url": "http://127.0.0.1:1/evil", "download_url": "file:///etc/passwd"}
                listed = [{**entry, "name": name} for name in repository.folders] + [{"type": "file", "name": "R.md"}]
                status, body = 200, json.dumps(listed).encode()
            elif path in repository.files:
                status, body = 200, repository.files[path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as url:
        repository.url = f"{url}/contents/crates?ref=main"
        yield repository


@pytest.fixture
def airflow(hub, capsys):
    def run(*words: str) -> str:
        options = parser().parse_args(["oscar", "hub", *words, "--url", hub.url])
        capsys.readouterr()
        options.func(options)
        return str(capsys.readouterr().out)

    return run


def test_services_are_listed_with_what_their_metadata_say(hub, airflow):
    hub.folders += ["broken", "empty"]
    hub.files["broken/ro-crate-metadata.json"] = b"<html>"
    (row,) = json.loads(airflow("list", "-o", "json"))
    assert row == {"name": "cowsay", "title": "Moo", "version": "1.0", "kind": "synchronous", "description": ""}
    assert hub.asked[0] == "/contents/crates?ref=main"


def test_a_service_is_shown_with_its_definition(airflow):
    shown = airflow("show", "cowsay")
    assert "title: Moo" in shown
    assert "      image: ghcr.io/grycap/cowsay" in shown
    assert json.loads(airflow("show", "cowsay", "-o", "json"))["definition"] == FDL


def test_a_service_is_applied_with_its_script_and_is_unchanged_the_second_time(airflow, monkeypatch, tmp_path):
    with connected_oscar(monkeypatch, tmp_path) as oscar:
        assert airflow("apply", "cowsay", "--dry-run") == "moo: would be created\n"
        assert airflow("apply", "cowsay") == "moo: created\n"
        assert oscar.services.get("moo")["script"] == "#!/bin/sh\ncowsay\n"
        assert airflow("apply", "cowsay") == "moo: unchanged\n"
        assert airflow("apply", "cowsay", "--service", "mine") == "mine: created\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "has no service 'nosuch'.*hub list"),
        ("../x", "not the name of a service"),
        ("a/b", "not the name of a service"),
    ],
)
def test_a_name_that_is_none_is_refused_before_it_becomes_an_address(hub, airflow, name, message):
    with pytest.raises(SystemExit, match=message):
        airflow("show", name)
    assert not any(".." in path or "a/b" in path for path in hub.asked)


@pytest.mark.parametrize("script", ["../other/script.sh", "/etc/passwd", "..", "a//../b"])
def test_a_script_outside_the_services_folder_is_not_read(hub, airflow, script):
    hub.files["cowsay/fdl.yml"] = FDL.replace("script.sh", script).encode()
    hub.files["other/script.sh"] = b"evil"
    with pytest.raises(SystemExit, match=r"leads out of|has no file|does not lie below"):
        airflow("apply", "cowsay", "--dry-run")
    assert not any("other" in path for path in hub.asked)


def test_addresses_in_answers_are_not_followed(hub, airflow):
    hub.answer = (302, {"location": "http://127.0.0.1:1/evil"}, b"")
    with pytest.raises(SystemExit, match="redirects to 'http://127.0.0.1:1/evil', which is not followed"):
        airflow("list")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((403, {"x-ratelimit-remaining": "0"}, b"{}"), "60 requests an hour"),
        ((401, {}, b"no"), "answers 401.*check --url"),
        ((200, {}, b"<html>a page</html>"), "is not a folder of a repository"),
        ((200, {}, b"x" * (3 * 1024 * 1024)), "too large"),
    ],
)
def test_answers_that_are_none_of_a_hub_are_one_clear_sentence(hub, airflow, answer, message):
    hub.answer = answer
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        airflow("list")


def test_without_a_network_the_command_says_what_to_do():
    options = parser().parse_args(["oscar", "hub", "list", "--url", "http://127.0.0.1:1/contents"])
    with pytest.raises(SystemExit, match=r"cannot connect.*needs the network.*services apply crates/NAME/fdl\.yml"):
        options.func(options)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://h/x", "http://", "http://u:p@h/x", "http://[::1/x"])
def test_a_url_that_is_no_hubs_is_refused(url):
    with pytest.raises(DefinitionError, match="URL of the Hub"):
        Hub(url)


@pytest.mark.parametrize(
    "metadata", [b"", b"[]", b"{}", b'{"@graph": {}}', b'{"@graph": [1, {"@id": "x"}]}', b"[" * 9999]
)
def test_metadata_that_are_no_crate_are_an_error_of_ours(metadata):
    with pytest.raises(DefinitionError, match="metadata of 'x'"):
        Crate.from_metadata("x", metadata)


def test_metadata_of_strangers_cannot_write_to_the_terminal():
    root = {"description": "a\x1b[2Jb\nc", "license": {"@id": "MIT"}, "processorRequirements": ["1 vCPU", "0 GPU"]}
    parts = [{"@id": "fdl.yml"}, {"@id": "../../x"}, {"@id": "http://evil/x"}, {"@id": "docker/Dockerfile"}]
    found = Crate.from_metadata("x", crate(hasPart=parts, **root))
    assert "\x1b" not in found.description
    assert (found.license, found.processors) == ("MIT", "1 vCPU, 0 GPU")
    assert found.files == ("fdl.yml", "docker/Dockerfile")
