# SPDX-License-Identifier: Apache-2.0
"""The job specification, checked as far as this program depends on it. No input or output here.

Its form is ``jobs/job.schema.json``; fields that are absent mean what they meant before they existed.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from airflow_provider_oscar.supervisor.errors import EXIT_SPEC, StageError
from airflow_provider_oscar.supervisor.text import encoded, quoted

SPEC_LIMIT = 64 * 1024 * 1024
CHECKSUM_TYPES = ("adler32", "md5", "sha256")
LAUNCHERS = ("none", "srun", "mpirun", "torchrun")
#: What reading a document raises that has another form.
NOT_OF_THE_FORM = (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError)
#: Variables that carry us or our envelope; the command never sees them.
PRIVATE_PREFIXES = (b"OSCAR_SUPERVISOR", b"OSCARENV_")


def bad_spec(message: str) -> NoReturn:
    """Refuse the specification."""
    raise StageError(f"cannot use the job specification: {message}", EXIT_SPEC, "bad-specification")


def read_spec(raw: bytes) -> dict[str, object]:
    """Return a job specification in which every field is there.

    :raises StageError: if it is not one this program understands.
    """
    try:
        spec = json.loads(raw.decode("utf-8"))
        version = str(spec["version"])
        if not re.match(r"1\.[0-9]", version):
            bad_spec(
                f"this supervisor reads version 1.x, the job has {quoted(version)}, which is newer or unknown; "
                "use the supervisor of the provider that submits the job"
            )
        return _read_fields(spec)
    except NOT_OF_THE_FORM as error:
        bad_spec(f"{type(error).__name__}: {quoted(error)}")


def _read_fields(spec: dict[str, Any]) -> dict[str, object]:
    if not isinstance(spec["command"], list) or not spec["command"]:
        bad_spec("the command must be a list of at least one string")
    common = {
        "submission_id": str(spec["submission_id"]),
        "placement": str(spec.get("placement") or ""),
        "placed": _placed(spec.get("placed")),
        "submitted_at": str(spec["submitted_at"]),
        "signing_key": _key(spec.get("signing_key")),
        "request_digest": str(spec.get("request_digest") or ""),
        "output": read_output(spec["output"]),
        "outputs": _read_outputs(spec),
        "command": [str(word) for word in spec["command"]],
        "environment": texts(spec.get("environment"), r"\0"),
        "timeout": amount(spec.get("timeout")),
        "grace_period": amount(spec.get("grace_period")),
        "max_output_bytes": amount(spec.get("max_output_bytes")),
        "on_unstaged": _one_of(spec, "on_unstaged", ("fail", "warn")),
        "launcher": _one_of(spec, "launcher", LAUNCHERS),
        "files": [_read_file(each) for each in spec.get("files") or ()]
        + [read_input(each) for each in spec.get("stored_files") or ()],
        "resume_from": [_read_saved(each) for each in spec.get("resume_from") or ()],
        "access": read_access(spec.get("access")),
    }
    for name in ("nodes", "ntasks", "ntasks_per_node"):
        common[name] = _count(spec.get(name), name)
    # 0 stands for as many as the job has processors.
    common["parallel"] = 0 if spec.get("parallel") == 0 else _count(spec.get("parallel"), "parallel") or 1
    common["persistent_worker"] = _flag(spec, "persistent_worker")
    found = {**common, "inputs": _inputs(spec)}
    found["objects"] = [
        {
            **found,
            "objects": [],
            "submission_id": str(each["submission_id"]),
            "request_digest": str(each.get("request_digest") or ""),
            "signing_key": _key(each.get("signing_key")),
            "batch_key": found["signing_key"],
            "inputs": _inputs(each),
            "output": read_output(each["output"]),
            "outputs": _read_outputs(each),
            "resume_from": [_read_saved(saved) for saved in each.get("resume_from") or ()] or found["resume_from"],
        }
        for each in spec.get("objects") or ()
    ]
    return found


def _placed(found: Any) -> dict[str, object]:
    """Return how the job came to its target; empty where nothing decided."""
    if not found:
        return {}
    return {
        "policy": str(found.get("policy") or ""),
        "reasons": [str(each) for each in found.get("reasons") or ()],
        "attempts": [
            {name: str(each.get(name) or "") for name in ("target", "outcome", "why")}
            for each in found.get("attempts") or ()
        ],
    }


def _inputs(spec: dict[str, Any]) -> list[dict[str, object]]:
    single = [] if spec.get("input") is None else [read_input(spec["input"])]
    found = single + [read_input(each, nested=True) for each in spec.get("inputs") or ()]
    names = [each["name"] for each in found]
    if len(set(names)) < len(names):
        bad_spec("two inputs have the same local name")
    return found


def read_input(source: dict[str, Any], nested: bool = False) -> dict[str, object]:
    """Return one object to stage in.

    :param nested: its name may be a path below the input directory, as of the objects below one prefix.
    """
    name = str(source["name"])
    checksum = source.get("checksum")
    if checksum is not None and checksum["type"] not in CHECKSUM_TYPES:
        bad_spec("the checksum is of type {}; expected adler32, md5 or sha256".format(quoted(checksum["type"])))
    return {
        "uri": str(source["uri"]),
        "name": safe_path(name) if nested else safe_name(name.rstrip("/").rpartition("/")[2]),
        "size": amount(source.get("size")),
        "etag": plain_etag(str(source.get("etag") or "")),
        "checksum": None if checksum is None else (str(checksum["type"]), str(checksum["value"]).lower()),
        "url": read_url(source["url"]),
        "headers": texts(source.get("headers")),
        "event": source.get("event") or {},
    }


def _read_saved(source: dict[str, Any]) -> dict[str, object]:
    """Return one file of a checkpoint, which keeps its name."""
    return {**read_input(source, nested=True), "name": exact_path(source["name"])}


def _read_file(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a small file of the job itself, with its content."""
    return {"name": safe_name(str(fields["name"])), "content": base64.b64decode(fields["content"], validate=True)}


def read_output(target: dict[str, Any]) -> dict[str, object]:
    """Return where results go."""
    known = {"uri": str(target["uri"]), "kind": target["kind"], "url": read_url(target["url"])}
    if known["kind"] == "s3-post":
        return {**known, "fields": texts(target["fields"]), "prefix": str(target["prefix"])}
    if known["kind"] == "webdav":
        return {**known, "headers": texts(target.get("headers"))}
    bad_spec("cannot stage out to the kind {}; expected s3-post or webdav".format(quoted(known["kind"])))


def _read_outputs(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the patterns of names that go elsewhere, each with its place; None stands for the job's own output."""
    return [
        {"pattern": str(each["pattern"]), "output": None if each["output"] is None else read_output(each["output"])}
        for each in spec.get("outputs") or ()
    ]


def read_access(terms: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return how long the URLs and tokens of the job last, and where fresh ones will be; None if they never will."""
    if terms is None:
        return None
    until = datetime.fromisoformat(str(terms["until"]).replace("Z", "+00:00"))
    return {
        "url": read_url(terms["url"]),
        "headers": texts(terms.get("headers")),
        "until": until if until.tzinfo else until.replace(tzinfo=timezone.utc),
        "lifetime": timedelta(seconds=float(terms["lifetime"])),
    }


def amount(value: object) -> object:
    """Return a number that is not negative, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
        bad_spec(f"{quoted(value)} is not a number, or negative")
    return value


def _count(value: object, name: str) -> object:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        bad_spec(f"{name} is {quoted(value)}; expected a positive integer")
    return value


def _flag(spec: dict[str, object], name: str) -> bool:
    value = spec.get(name)
    if value not in (None, True, False):
        bad_spec(f"{name} is {quoted(value)}; expected true or false")
    return bool(value)


def _one_of(spec: dict[str, object], name: str, known: tuple[str, ...]) -> str:
    value = spec.get(name) or known[0]
    if value not in known:
        bad_spec(f"{name} is {quoted(value)}; expected one of {', '.join(known)}")
    return str(value)


def _key(value: object) -> bytes:
    """Return the signing key; empty where the job has none, so that its manifest carries no signature."""
    key = bytes.fromhex(str(value or ""))
    if key and len(key) < 16:
        bad_spec("the signing key is shorter than 16 bytes")
    return key


def texts(mapping: dict[str, str] | None, forbidden: str = r"[\0-\x1f\x7f]") -> dict[str, str]:
    """Return names and values; headers and form fields go into protocols line by line, variables into C strings."""
    found = {str(name): str(value) for name, value in (mapping or {}).items()}
    if any(re.search(forbidden, name + value) for name, value in found.items()):
        bad_spec("a variable, header or form field has characters that cannot be there")
    return found


def read_url(url: str) -> str:
    """Return a URL that http.client will not refuse: it would quote it, signature included."""
    parts = urlsplit(url if re.match(r"[!-~]+\Z", url) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        bad_spec("a URL is not an absolute, percent-encoded http(s) URL")
    return url


def safe_path(name: str) -> str:
    """Return a path below a directory of ours, whatever was asked for: at most 15 safe names, joined by slashes."""
    return "/".join([safe_name(part) for part in name.split("/") if part][-15:]) or "input"


def exact_path(name: object) -> str:
    """Return the path of a file of a checkpoint as it is, which the command knows by its name; below its directory."""
    parts = str(name).split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        bad_spec(f"a file of the checkpoint is called {quoted(name)}, which is not a path below a directory")
    return str(name)


def safe_name(name: str) -> str:
    """Return one plain path segment."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-200:]
    return ("_" + name[1:] if name[:1] in (".", "-") else name) or "input"


def plain_etag(text: str | None) -> str:
    """Return an entity tag without quotes and without the mark of a weak one."""
    text = (text or "").strip()
    return (text[2:] if text.startswith("W/") else text).strip('"')


def object_key(uri: str) -> str:
    """Return what scripts for OSCAR's supervisor find in STORAGE_OBJECT_KEY: S3 key, or path of the file."""
    path = unquote(urlsplit(uri, allow_fragments=False).path, errors="surrogateescape")
    return path[1:] if uri.startswith("s3:") else path


def event_time(spec: dict[str, Any]) -> str:
    """Return when the event happened, or else when the job was submitted."""
    try:
        return str(spec["inputs"][0]["event"]["Records"][0]["eventTime"])
    except (KeyError, IndexError, TypeError):
        return str(spec["submitted_at"])


def command_environment(
    inherited: dict[bytes, bytes], spec: dict[str, Any], places: dict[str, str]
) -> dict[bytes, bytes]:
    """Return the variables of the command: those of the container, the user's, and ours over both.

    No URL, header, form field or key is among them: an outer supervisor's EVENT, which is our specification, goes.
    """
    source = spec["inputs"][0] if spec["inputs"] else None
    ours = {
        "INPUT_FILE_PATH": "",
        **places,
        "JOB_UUID": spec["submission_id"],
        "STORAGE_OBJECT_KEY": object_key(source["uri"]) if source else "",
        "EVENT_TIME": event_time(spec) if source else "",
        "EVENT": json.dumps(source["event"], separators=(",", ":")) if source and source["event"] else "",
    }
    found = {name: value for name, value in inherited.items() if not name.startswith(PRIVATE_PREFIXES)}
    # Python's prints appear while it runs, not when a buffer is full.
    found.setdefault(b"PYTHONUNBUFFERED", b"1")
    for name, value in {**spec["environment"], **ours}.items():
        found.pop(encoded(name), None)
        if value or name not in ours:
            found[encoded(name)] = encoded(value)
    return found
