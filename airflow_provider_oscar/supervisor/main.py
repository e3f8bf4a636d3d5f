# SPDX-License-Identifier: Apache-2.0
"""Where it starts: ``--job PATH`` or ``--wrap JSON``, a work directory, and an exit code that is the command's."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile

from airflow_provider_oscar.supervisor import trees
from airflow_provider_oscar.supervisor.batch import perform_all
from airflow_provider_oscar.supervisor.command import Signals, hide_from_others
from airflow_provider_oscar.supervisor.errors import EXIT_IO, STAGE_IN, STAGE_OUT, Interrupted, StageError
from airflow_provider_oscar.supervisor.manifest import first_manifest, print_marker
from airflow_provider_oscar.supervisor.sealing import is_sealed, opened
from airflow_provider_oscar.supervisor.spec import SPEC_LIMIT, bad_spec, read_spec
from airflow_provider_oscar.supervisor.text import clip, quoted, say, utc_now
from airflow_provider_oscar.supervisor.wrap import wrap

#: Where the script of an OSCAR service keeps the pipe whose end is, for OSCAR's supervisor, the end of the script. What
#: the command leaves behind must not hold it open.
OUTER_OUTPUT = 9


def below_sandbox(path: str) -> str:
    """Return where a mount appears in a process container: below $CONTAINER_SANDBOX_MOUNT_POINT, if it is there."""
    sandbox = os.environ.get("CONTAINER_SANDBOX_MOUNT_POINT", "").rstrip("/")
    return sandbox + path if sandbox and path.startswith("/") and os.path.exists(sandbox + path) else path


def work_directory() -> str:
    """Return a fresh directory on the volume the pod gives us, else where temporary files go."""
    volume = below_sandbox(os.environ.get("OSCAR_SUPERVISOR_WORKDIR", ""))
    usable = volume and os.access(volume, os.W_OK | os.X_OK)
    return tempfile.mkdtemp(prefix="airflow-oscar-", dir=volume if usable else None)


def load_spec(path: str) -> dict[str, object]:
    """Read the job specification, and take it away before the command could read it, where that is possible.

    A Secret that Kubernetes mounts cannot be removed; see the threat model for what that leaves to whom.
    """
    place = below_sandbox(path)
    try:
        with open(place, "rb") as file:
            raw = file.read(SPEC_LIMIT)
    except OSError as error:
        bad_spec(f"{quoted(path)} cannot be read: {error.strerror}")
    spec = read_spec(opened(raw, os.environ) if is_sealed(raw) else raw)
    with contextlib.suppress(OSError):
        os.unlink(place)
    return spec


def refuse(failure: StageError) -> int:
    """Report a job that cannot begin; it names no place for a manifest, so the log has to do."""
    say(str(failure))
    nothing: dict[str, object] = {
        "submission_id": "",
        "placement": "",
        "inputs": [],
        "output": {"uri": ""},
        "submitted_at": utc_now(),
        "request_digest": "",
    }
    error = {
        "stage": STAGE_IN,
        "message": clip(str(failure)),
        "reason": failure.reason,
        "permanent": failure.permanent,
    }
    print_marker({**first_manifest(nothing), "exit_code": failure.code, "error": error}, b"")
    return failure.code


def main(arguments: list[str] | None = None) -> int:
    """Run one job and return the exit code."""
    parser = argparse.ArgumentParser(prog="supervisor", description="Run one job of airflow-provider-oscar.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--job", metavar="PATH", help="the job specification, a JSON file")
    what.add_argument("--wrap", metavar="JSON", help="run the script of an OSCAR service and say how it ended")
    given = parser.parse_args(arguments)
    hide_from_others()
    with contextlib.suppress(OSError):
        os.set_inheritable(OUTER_OUTPUT, False)
    if given.wrap is not None:
        return wrap(given.wrap)
    path = given.job
    signals, work = Signals(), ""
    try:
        spec = load_spec(path)
        work = work_directory()
        return perform_all(spec, work, signals)
    except StageError as failure:
        return refuse(failure)
    except OSError as error:
        return refuse(StageError(f"cannot make a work directory: {error.strerror}", EXIT_IO, "work-directory", False))
    except Interrupted as signalled:
        return refuse(StageError(f"cancelled by {signalled.args[0]}", signalled.args[1], "cancelled", False))
    finally:
        signals.stage = STAGE_OUT
        if work:
            trees.remove(work)
        with contextlib.suppress(ChildProcessError):  # as process 1 of a container we inherit the orphans
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
