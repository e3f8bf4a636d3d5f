# SPDX-License-Identifier: Apache-2.0
"""Directories of Onedata, over a client that answers page by page as Oneprovider does."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.filesystem.onedata import list_directory


class OnedataRESTError(Exception):
    """As the client raises it."""


class Client:
    """Children by (space, path); the token is the place to go on from."""

    def __init__(self, children: dict[tuple[str, str | None], list[dict[str, Any]]]) -> None:
        self.children = children
        self.stuck = False

    def list_spaces(self) -> list[str]:
        return sorted({space for space, _ in self.children})

    def list_children(
        self, space: str, *, file_path: str | None, attributes: list[str], limit: int, continuation_token: str | None
    ) -> dict[str, Any]:
        assert limit <= 1000
        if (space, file_path) not in self.children:
            raise OnedataRESTError("Bad Request: posix (enoent)")
        start = int(continuation_token or 0)
        found = self.children[space, file_path]
        page = [{name: each[name] for name in attributes if name in each} for each in found[start : start + limit]]
        end = start if self.stuck else start + limit
        last = start + limit >= len(found)
        return {"children": page, "isLast": last, "nextPageToken": None if last else str(end)}


def child(name: str, kind: str = "REG") -> dict[str, Any]:
    return {"name": name, "type": kind, "size": 3, "mtime": 1_795_000_000, "fileId": "x"}


def test_more_children_than_one_page_holds_are_all_listed():
    client = Client({("lab", "in"): [child(f"{number}.h5") for number in range(2500)]})
    assert len({each["name"] for each in list_directory(client, "lab/in")}) == 2500


def test_pages_that_do_not_end_are_an_error():
    client = Client({("lab", None): [child(f"{number}.h5") for number in range(1500)]})
    client.stuck = True
    with pytest.raises(TransientError, match="same page twice"):
        list_directory(client, "lab")


@pytest.mark.parametrize(("tokens", "message"), [("ab", "same page twice"), ("", "does not end after 1000 pages")])
def test_pages_that_come_again_or_are_always_new_are_an_error(tokens: str, message: str):
    class Endless(Client):
        asked = 0

        def list_children(self, *_: Any, **__: Any) -> dict[str, Any]:
            self.asked += 1
            token = tokens[self.asked % len(tokens)] if tokens else str(self.asked)
            return {"children": [], "isLast": False, "nextPageToken": token}

    with pytest.raises(TransientError, match=message):
        list_directory(Endless({}), "lab")


def test_a_space_is_listed_through_the_hook_with_its_directories(monkeypatch):
    client = Client({("lab", None): [child("in", "DIR"), child("a b#.h5")], ("lab", "in"): [child("x")]})
    hook = FileSystemHook("onedata", "eu")
    hook.__dict__["fs"] = SimpleNamespace(
        client=client, invalidate_cache=lambda: None, exists=lambda path: False, root_marker="/"
    )
    assert hook.root("onedata://lab/in") == "lab/in"
    found = {entry.key: (entry.is_directory, entry.size) for entry in hook.iter_entries("lab")}
    assert found == {"in": (True, None), "a b#.h5": (False, 3)}
    with pytest.raises(FileNotFoundError):
        list_directory(client, "lab/missing")
    assert [each["name"] for each in list_directory(client, "")] == ["lab"]


def test_a_connection_names_onezone_and_holds_the_token(monkeypatch):
    extra = {"preferred_providers": ["one.example"]}
    fields = {"conn_type": "generic", "host": "onezone.example", "password": "t", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_EU", json.dumps(fields))
    options = FileSystemHook("onedata", "eu")._options()
    assert options == {"onezone_host": "onezone.example", "token": "t", "preferred_providers": ["one.example"]}
