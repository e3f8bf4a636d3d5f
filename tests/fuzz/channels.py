# SPDX-License-Identifier: Apache-2.0
"""Readers of what queues, topics and file systems give, and of configurations that people bring along."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import yaml
from airflow.sdk import Connection

from airflow_provider_oscar.cli.oscar_cli_config import cluster_connection
from airflow_provider_oscar.core.errors import OscarProviderError
from airflow_provider_oscar.core.fdl import read_yaml
from airflow_provider_oscar.hooks.filesystem.hook import FileSystemHook
from airflow_provider_oscar.hooks.interlink.config import core_api
from airflow_provider_oscar.watch.notifications.kafka import KafkaChannel
from airflow_provider_oscar.watch.notifications.listener import new_keys
from airflow_provider_oscar.watch.notifications.rucio import RucioChannel
from airflow_provider_oscar.watch.notifications.sqs import SqsChannel
from tests.fuzz.altered import altered
from tests.fuzz.answer_seeds import DOCUMENTS

_POINTERS = {
    "each": "/files", "bucket": "/store", "key": "/path", "size": "/bytes", "etag": "/tag", "time": "/at",
    "event": "/what",
}  # fmt: skip
_KEYS = partial(new_keys, bucket="b", prefix="")
_PLAIN = KafkaChannel("t", conn_id="c", group="g", keys=_KEYS, directory="/watched", base="/base")
_OWN = KafkaChannel("t", conn_id="c", group="g", keys=_KEYS, pointers=_POINTERS)
_SQS = SqsChannel("https://q/1/n", conn_id="c", bucket="b", prefix="")
_RUCIO = RucioChannel("/topic/x", conn_id="c", scope="s", name="d")


def _documents(name: str, data: bytes) -> list[Any]:
    return [altered(seed, data) for seed in DOCUMENTS[name]]


def _written(documents: list[Any]) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


def channels(data: bytes) -> None:
    """A message of a topic or queue: never an error, since one message must not part a watcher from its channel."""
    from tests.fuzz.seeds import DOCUMENTS as NOTIFICATIONS

    for body in (data, *_written([altered(seed, data) for seed in NOTIFICATIONS["notification"]])):
        _checked(_PLAIN._keys(body))
        _checked(_SQS._keys(body.decode("utf-8", "replace")))
    for body in (data, *_written(_documents("own form", data))):
        _checked(_OWN._keys(body))
    for body in (data, *_written(_documents("rucio message", data))):
        _RUCIO._delivery(body)


def _checked(keys: Mapping[str, object]) -> None:
    for key in keys:
        if not isinstance(key, str) or not key:
            raise AssertionError(f"{key!r} is no key")


def file_systems(data: bytes) -> None:
    """A listing of any file system: entries below the directory, or an error of ours."""
    entries, pages = _documents("entry", data), _documents("onedata", data)
    plain, onedata = FileSystemHook("sftp"), FileSystemHook("onedata")
    plain.__dict__["fs"] = SimpleNamespace(
        ls=lambda directory, detail: entries, info=lambda path: entries[0], invalidate_cache=lambda: None,
        exists=lambda path: True,
    )  # fmt: skip
    for page in pages:
        client = SimpleNamespace(list_children=lambda *_, page=page, **__: page)
        onedata.__dict__["fs"] = SimpleNamespace(
            client=client, invalidate_cache=lambda: None, exists=lambda path: True, info=lambda path: {}
        )
        _entries(onedata)
    _entries(plain)


def _entries(hook: FileSystemHook) -> None:
    with suppress(OscarProviderError):
        for entry in hook.iter_entries("dir", unreadable=lambda count: None):
            if not entry.key or entry.key.startswith("/") or ".." in entry.key.split("/"):
                raise AssertionError(f"{entry!r} is not below the directory")
            json.dumps(entry.to_event(conn_id="c", container="sftp://h/dir", key=entry.key).to_dict())


def kube_config(data: bytes) -> None:
    """A kube config in a connection: a client, or an error that says what is wrong."""
    for document in (data.decode("utf-8", "replace"), *_documents("kube config", data)):
        extra = json.dumps({"kube_config_secret": document if isinstance(document, str) else json.dumps(document)})
        if "exec" in extra or "auth-provider" in extra or "/" in extra.replace("https://", ""):
            continue  # would start the program that it names, or read that file
        with suppress(OscarProviderError):
            core_api(Connection(conn_id="k", conn_type="interlink", extra=extra), "connection 'k'")


def oscar_cli(data: bytes) -> None:
    """The configuration of oscar-cli, of which connections are made."""
    texts = [data.decode("utf-8", "replace")]
    for document in _documents("oscar-cli", data):
        with suppress(UnicodeEncodeError):
            texts.append(yaml.safe_dump(document, allow_unicode=True).encode().decode())
    for text in texts:
        with suppress(OscarProviderError):
            clusters = read_yaml(text, "config.yaml").get("oscar")
            for each in clusters.values() if isinstance(clusters, dict) else ():
                if isinstance(each, dict):
                    json.dumps(cluster_connection(each))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "channels": channels,
    "file-systems": file_systems,
    "kube-config": kube_config,
    "oscar-cli": oscar_cli,
}
