# SPDX-License-Identifier: Apache-2.0
"""Puts exit code, outputs and cost around the script of an OSCAR service, which stays as it is.

OSCAR's supervisor ignores exit codes, so the wrapped script ends with a marker line of ours. Nothing is staged here and
nothing written among the outputs: that is OSCAR's part, and whether it worked is what OSCAR says of the job.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile

from airflow_provider_oscar.supervisor import trees
from airflow_provider_oscar.supervisor.command import Run, Signals
from airflow_provider_oscar.supervisor.errors import RUN, StageError
from airflow_provider_oscar.supervisor.joblog import JobLog
from airflow_provider_oscar.supervisor.manifest import first_manifest, print_marker, read_metrics
from airflow_provider_oscar.supervisor.outputs import find_outputs
from airflow_provider_oscar.supervisor.ranges import CHUNK
from airflow_provider_oscar.supervisor.stores import S3_KEY_LIMIT, open_regular
from airflow_provider_oscar.supervisor.text import clip, encoded, say, utc_now

#: Variables of ours; the script never sees them.
VARIABLES = (b"AIRFLOW_OSCAR_WRAP_PROGRAM", b"AIRFLOW_OSCAR_WRAP_SCRIPT")
#: More outputs are not listed one by one.
LISTED = 1000


def wrap(text: str) -> int:
    """Run the script of the environment and return its exit code.

    :param text: JSON object: ``output_uri``, and lists ``prefix`` and ``suffix`` of names that are staged out.
    """
    wanted = json.loads(text)
    script = encoded(os.environ.get("AIRFLOW_OSCAR_WRAP_SCRIPT", ""))
    # The output is shown, and kept by OSCAR; a second copy on the disk would be for nothing.
    os.environ["OSCAR_SUPERVISOR_LOG_LIMIT"] = "0"
    signals, work = Signals(), tempfile.mkdtemp(prefix="airflow-oscar-")
    try:
        path, metrics = os.path.join(work, "script.sh"), os.path.join(work, "metrics.json")
        with open(path, "wb") as file:
            file.write(script)
        now = utc_now()
        manifest = first_manifest(
            {
                "submission_id": os.environ.get("JOB_UUID", ""),
                "placement": "",
                "inputs": [],
                "output": {"uri": str(wanted.get("output_uri") or "")},
                "submitted_at": now,
                "request_digest": "",
            }
        )
        manifest["proof"] = "wrapped"
        environment = {name: value for name, value in os.environb.items() if name not in VARIABLES}
        environment.pop(b"OSCAR_SUPERVISOR_LOG_LIMIT", None)
        environment[b"SUPERVISOR_METRICS_FILE"] = encoded(metrics)
        run = Run(signals, JobLog(work), None, None)
        signals.stage = RUN
        try:
            run.perform(["/bin/sh", path], environment)
            manifest["exit_code"], manifest["resources"] = run.exit_code, run.resources
            failure = run.stopped
        except StageError as error:
            manifest["exit_code"], failure = error.code, error
        if failure is not None:
            manifest["error"] = {
                "stage": RUN,
                "message": clip(str(failure)),
                "reason": failure.reason,
                "permanent": failure.permanent,
            }
        manifest["phases"][RUN] = {"start": now, "end": utc_now()}
        manifest["metrics"] = read_metrics(metrics)
        names = tuple(wanted.get("prefix") or [""]), tuple(wanted.get("suffix") or [""])
        manifest["outputs"] = outputs_below(os.environ.get("TMP_OUTPUT_DIR", ""), *names)
        print_marker(manifest, b"")
        return int(manifest["exit_code"])
    finally:
        trees.remove(work)


def outputs_below(folder: str, prefixes: tuple[str, ...], suffixes: tuple[str, ...]) -> list[dict[str, object]]:
    """Return the files that OSCAR's supervisor is going to stage out, as it chooses them."""
    found: list[dict[str, object]] = []
    for each in find_outputs(folder, S3_KEY_LIMIT, reserved=False)[0] if folder else ():
        if not (each.key.startswith(prefixes) and each.key.endswith(suffixes)):
            continue
        if len(found) == LISTED:
            say(f"more than {LISTED} outputs; the others are not listed")
            break
        try:
            found.append({"key": each.key, **described(each.path)})
        except OSError as error:
            say(f"an output cannot be read, and is not listed: {error.strerror}")
    return found


def described(path: str) -> dict[str, object]:
    """Return size and checksum of a file.

    :raises OSError: if it cannot be read.
    """
    file, status = open_regular(path)
    digest = hashlib.sha256()
    with file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return {"size": status.st_size, "sha256": digest.hexdigest()}
