# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar buckets``: the buckets of an OSCAR cluster, and the objects in them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

from airflow_provider_oscar.cli.answers import print_done, print_rows, reports_errors
from airflow_provider_oscar.cli.arguments import CONNECTION, OUTPUT
from airflow_provider_oscar.core.errors import DefinitionError

_BUCKET = Arg(("bucket",), help="name of the bucket")


def _command(name: str, text: str, function: str, *args: Arg) -> ActionCommand:
    return ActionCommand(name=name, help=text, func=lazy_load_command(f"{__name__}.{function}"), args=args)


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
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
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
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
    path = Path(options.file)
    key = options.key or path.name
    link = hook.run(hook.presign(options.bucket, key, "upload"))
    with path.open("rb") as file:
        _transfer(link, content=file.read())
    print_done(f"{options.bucket}/{key}", "", options.output)


@reports_errors
def buckets_get(options: argparse.Namespace) -> None:
    """Download an object of a bucket, through a link of OSCAR's."""
    from airflow_provider_oscar.hooks.oscar.hook import OscarHook

    hook = OscarHook(options.conn_id)
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
    link = hook.run(hook.presign(options.bucket, key, "download"))
    data = _transfer(link)
    target = Path(options.file or Path(key).name)
    target.write_bytes(data)
    print_done(str(target), "", options.output)


def _objects(found: object) -> list[Mapping[str, object]]:
    """Return the objects of a bucket that have a name."""
    listed = found if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, Mapping) and each.get("object_name")]


def _transfer(link: Mapping[str, object], *, content: bytes | None = None) -> bytes:
    import httpx

    headers = link.get("headers")
    answer = httpx.request(
        str(link["method"]),
        str(link["url"]),
        content=content,
        headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {},
        timeout=300,
    )
    if answer.status_code == 404:
        raise DefinitionError(
            "the store behind OSCAR has no such object; `airflow oscar buckets list BUCKET` shows those that are there"
        )
    if not answer.is_success:
        raise DefinitionError(
            f"the store behind OSCAR answered {answer.status_code}; its address is the cluster's own, and may not be "
            "reachable from here"
        )
    return answer.content
