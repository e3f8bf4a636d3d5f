# SPDX-License-Identifier: Apache-2.0
"""The supervisor as a process of the oldest Python it runs on: specifications it must not obey, and its mounts."""

from __future__ import annotations

import json
import subprocess

import pytest

from airflow_provider_oscar.supervisor import bundle
from tests.support.supervised import MODULES, command_line, job, oldest_python


def test_traceback_of_the_joined_program_shows_the_line(tmp_path):
    text = tmp_path / "program.py"
    text.write_text(bundle.program().replace("    sys.exit(main())", "    main(3)"))
    done = subprocess.run([oldest_python(), "-I", "-S", str(text)], capture_output=True, text=True)
    assert "main.py" in done.stderr
    assert "given = parser.parse_args(arguments)" in done.stderr


def test_program_compiles_on_the_oldest_interpreter():
    check = "import sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')"
    paths = sorted(str(path) for path in MODULES.glob("*.py"))
    assert subprocess.run([oldest_python(), "-I", "-S", "-W", "error", "-c", check, *paths]).returncode == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "2.0"}, "reads version 1.x, the job has '2.0', which is newer"),
        ({"version": None}, "newer or unknown"),
        ({"command": []}, "a list of at least one string"),
        ({"command": "ls"}, "a list of at least one string"),
        ({"output": {"uri": "x://", "kind": "ftp", "url": "https://h/"}}, "cannot stage out to the kind 'ftp'"),
        ({"output": None}, "TypeError"),
        ({"timeout": "soon"}, "is not a number"),
        ({"input": {"uri": "s3://b/k", "name": "k", "url": "https://h/a b"}}, "not an absolute, percent-encoded"),
        ({"input": {"uri": "s3://b/k", "name": "k", "url": "file:///etc/passwd"}}, "not an absolute, percent-encoded"),
        (
            {"input": {"uri": "s3://b/k", "name": "k", "url": "https://h/", "headers": {"A": "b\r\nC: d"}}},
            "characters that cannot be there",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_specification_is_refused_by_name(store, supervise, change, said):
    run = supervise({**job(store, ["true"]), **change})
    assert run.code == 78
    assert said in run.message
    assert store.requests == []


def test_newer_minor_version_is_read(store, supervise):
    assert supervise({**job(store, ["true"]), "version": "1.7", "new": 1}).code == 0


def test_the_manifest_tells_how_the_job_came_to_its_target(store, supervise):
    attempt = {"target": "hpc-gpu", "outcome": "failed", "why": "the node died"}
    placed = {"policy": "Fallback", "reasons": ["first of its chain"], "attempts": [attempt]}
    run = supervise({**job(store, ["true"]), "placed": placed})
    assert run.code == 0
    assert run.manifest.to_dict()["placed"] == placed


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_what_is_not_json_is_refused(supervise, raw):
    assert supervise(raw).code == 78


def test_missing_file_is_refused_by_name(tmp_path):
    command = command_line(tmp_path, tmp_path / "none.json")
    done = subprocess.run(command, capture_output=True, text=True, env={})
    assert done.returncode == 78
    assert "none.json' cannot be read: No such file" in done.stdout + done.stderr


def test_mounts_of_a_process_container_are_found_below_its_sandbox(store, supervise, tmp_path):
    sandbox = tmp_path / "sandbox"
    (sandbox / "volume").mkdir(parents=True)
    spec = job(store, ["/bin/sh", "-c", 'echo "$TMP_OUTPUT_DIR"'])
    path = tmp_path / "job.json"
    inner = sandbox / str(path).lstrip("/")
    inner.parent.mkdir(parents=True)
    inner.write_text(json.dumps({**spec, "placement": "inner"}))
    run = supervise(spec, CONTAINER_SANDBOX_MOUNT_POINT=str(sandbox), OSCAR_SUPERVISOR_WORKDIR="/volume")
    assert run.code == 0
    assert run.manifest.placement == "inner"
    assert run.out.startswith(str(sandbox / "volume"))
