# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar buckets``: the buckets of an OSCAR cluster, and the objects in them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import httpx
from airflow.cli.cli_config import Arg, GroupCommand

from airflow_provider_oscar.cli.answers import print_done, print_rows, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT, command
from airflow_provider_oscar.cli.lookup import oscar_hook
from airflow_provider_oscar.core.errors import DefinitionError, quoted

_BUCKET = Arg(("bucket",), help="name of the bucket")


_command = partial(command, __name__)

BUCKETS = GroupCommand(
    name="buckets",
    help="Work with the buckets of an OSCAR cluster",
    subcommands=(
        _command(
            "list",
            "List buckets, or the objects of one",
            "buckets_list",
            Arg(("bucket",), nargs="?", default="", help="name of a bucket"),
            Arg(("--prefix",), default="", help="only objects whose key begins so"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "put",
            "Upload a file",
            "buckets_put",
            _BUCKET,
            Arg(("file",), help="the file"),
            Arg(("--key",), default="", help="key of the object (default: name of the file)"),
            CONNECTION,
            OUTPUT,
        ),
        _command(
            "get",
            "Download an object",
            "buckets_get",
            _BUCKET,
            Arg(("key",), nargs="?", default="", help="key of the object; with --latest, how it begins"),
            Arg(("--latest",), action="store_true", help="the youngest object"),
            Arg(("--file",), default="", help="where it goes (default: the key's last part)"),
            CONNECTION,
            OUTPUT,
        ),
    ),
)


@reports_errors
def buckets_list(options: argparse.Namespace) -> None:
    """List buckets, or the objects of one."""
    hook = oscar_hook(options)
    found: Sequence[Mapping[str, object]]
    if options.bucket:
        columns: tuple[str, ...] = ("object_name", "size_bytes", "last_modified")
        objects = _objects(hook.run(hook.get_bucket(options.bucket)).get("objects"))
        found = [each for each in objects if str(each["object_name"]).startswith(options.prefix)]
    elif options.prefix:
        raise DefinitionError("--prefix is of objects; name their bucket as well")
    else:
        columns = ("bucket_name", "visibility", "owner")
        found = hook.run(hook.list_buckets())
    rows = [{name: "" if each.get(name) is None else each[name] for name in columns} for each in found]
    print_rows(rows, columns, options.output)


@reports_errors
def buckets_put(options: argparse.Namespace) -> None:
    """Upload a file into a bucket, through a link of OSCAR's."""
    hook = oscar_hook(options)
    path = Path(options.file)
    key = options.key or path.name
    link = hook.run(hook.presign(options.bucket, key, "upload"))
    _upload(link, path)
    print_done(f"{options.bucket}/{key}", "", options.output)


@reports_errors
def buckets_get(options: argparse.Namespace) -> None:
    """Download an object of a bucket, through a link of OSCAR's."""
    hook = oscar_hook(options)
    key = options.key
    if options.latest:
        objects = _objects(hook.run(hook.get_bucket(options.bucket)).get("objects"))
        found = [each for each in objects if str(each["object_name"]).startswith(key) and each.get("size_bytes")]
        if not found:
            raise DefinitionError(f"bucket {options.bucket!r} has no object below {key!r}")
        # OSCAR writes times as Go does, of one zone, so that they sort as texts.
        key = str(
            max(found, key=lambda each: (str(each.get("last_modified")), str(each["object_name"])))["object_name"]
        )
    elif not key:
        raise DefinitionError("name the key of an object, or say --latest")
    target = Path(options.file or _file_name(key))
    _download(hook.run(hook.presign(options.bucket, key, "download")), target)
    print_done(str(target), "", options.output)


def _objects(found: object) -> list[Mapping[str, object]]:
    """Return the objects of a bucket that have a name."""
    listed = found if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, Mapping) and each.get("object_name")]


def _file_name(key: str) -> str:
    """Return the last part of a key, as a file of this directory."""
    name = key.rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name:
        raise DefinitionError(f"the key {quoted(key)} does not end with the name of a file; say --file")
    return name


def _upload(link: Mapping[str, object], path: Path) -> None:
    """Send a file, which need not fit into memory."""
    with path.open("rb") as file, _store(link, file) as answer:
        answer.read()


def _download(link: Mapping[str, object], target: Path) -> None:
    """Write an object to a file, piece by piece; what breaks off leaves no file."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _store(link) as answer, part.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _store(link: Mapping[str, object], content: IO[bytes] | None = None) -> Iterator[httpx.Response]:
    """Follow a link of OSCAR's to its store.

    :raises OscarProviderError: if the store refuses, or cannot be reached.
    """
    from airflow_provider_oscar.hooks.http.flows import TRANSPORT_ERRORS, transport_error

    headers = link.get("headers")
    sent = {str(k): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {}
    try:
        with httpx.stream(
            str(link.get("method") or "GET"), str(link.get("url") or ""), content=content, headers=sent, timeout=300
        ) as answer:
            if answer.status_code == 404:
                raise DefinitionError(
                    "the store behind OSCAR has no such object; `airflow oscar buckets list BUCKET` shows those that "
                    "are there"
                )
            if not answer.is_success:
                raise DefinitionError(
                    f"the store behind OSCAR answered {answer.status_code}; its address is the cluster's own, and may "
                    "not be reachable from here"
                )
            yield answer
    except TRANSPORT_ERRORS as error:
        display_name = "the store behind OSCAR, whose address is the cluster's own and may not be reachable from here"
        raise transport_error(error, display_name=display_name) from error
