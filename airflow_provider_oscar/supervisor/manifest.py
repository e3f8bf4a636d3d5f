# SPDX-License-Identifier: Apache-2.0
"""The manifest: what is written about one job, signed, and as one line that always fits a log.

The signature is HMAC-SHA256 over the canonical JSON of the manifest without its ``signature``, with the key of the
job's specification: what it says was written by somebody who was given the job, not by who read its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
from typing import Any

from airflow_provider_oscar.supervisor.stores import open_regular
from airflow_provider_oscar.supervisor.text import clean, clip, integer, say, utc_now

#: Version of the manifest this program writes; it reads job specifications of the same major version.
PROTOCOL_VERSION = "1.0"
MARKER = "##airflow-oscar-manifest "
#: Log collectors cut longer lines.
MARKER_LIMIT = 60000
METRICS_LIMIT = 1024 * 1024
#: Fields that can grow; a marker line that does not fit goes without them.
GROWING = {
    "outputs": [],
    "unstaged": [],
    "metrics": {},
    "objects": [],
    "inputs": [],
    "placed": None,
}  # type: dict[str, object]


def first_manifest(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a job that has not begun."""
    inputs = [{"uri": each["uri"], "etag": each["etag"], "size": each["size"]} for each in spec["inputs"]]
    found = {
        "version": PROTOCOL_VERSION,
        "submission_id": spec["submission_id"],
        "placement": str(spec["placement"]),
        "input": inputs[0] if inputs else None,
        "output_uri": spec["output"]["uri"],
        "outputs": [],
        "exit_code": 0,
        "error": None,
        "phases": {"queued": {"start": spec["submitted_at"], "end": utc_now()}},
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID") or None,
        "device": None,
        "metrics": {},
    }
    if len(inputs) > 1:
        found["inputs"] = inputs
    if spec.get("placed"):
        found["placed"] = spec["placed"]
    if spec["request_digest"]:
        found["request_digest"] = spec["request_digest"]
    return found


def canonical(manifest: dict[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    unsigned = {name: value for name, value in manifest.items() if name != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def signed(manifest: dict[str, object], key: bytes) -> dict[str, object]:
    """Return the manifest with its signature; as it is, where the job has no key."""
    if not key:
        return manifest
    digest = hmac.new(key, canonical(manifest), hashlib.sha256).hexdigest()
    return {**manifest, "signature": "hmac-sha256:" + digest}


def marker_line(manifest: dict[str, Any], key: bytes) -> str:
    """Return the manifest as one line that always fits: what can grow is left out first, then clipped."""
    emptied = {name: empty for name, empty in GROWING.items() if name in manifest}
    short = {**manifest, **emptied, "truncated": True}
    clipped = {name: clip(value) for name, value in short.items()}
    clipped["input"] = short["input"] and {name: clip(value) for name, value in short["input"].items()}
    for each in (manifest, short, clipped):
        line = MARKER + json.dumps(signed(each, key), separators=(",", ":"))
        if len(line) <= MARKER_LIMIT:
            return line
    return ""


def print_marker(manifest: dict[str, object], key: bytes) -> None:
    """Write the marker line, the last of the log; to the descriptor, so that no buffer is left when nobody reads."""
    data = ("\n" + marker_line(manifest, key) + "\n").encode("ascii")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(1, data) :]


def read_metrics(path: str) -> dict[str, object]:
    """Return what the command measured, cleaned; anything but one small JSON object is said to be ignored."""
    if not os.path.lexists(path):
        return {}
    try:
        with open_regular(path)[0] as file:
            return dict(clean(dict(json.loads(file.read(METRICS_LIMIT).decode("utf-8"), parse_int=integer))))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        say(f"SUPERVISOR_METRICS_FILE is ignored ({type(error).__name__}); expected one JSON object, at most 1 MiB")
        return {}
