# SPDX-License-Identifier: Apache-2.0
"""A service's own script, wrapped and run: it sees what it saw before, and its exit code counts."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from oscar_testbed.fakes.oscar import faas

from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.wrapping import wrapped

JOB = "svc-0123456789abcdef"


def service(script, **fields):
    outputs = (StoragePath(storage_provider="minio.default", path="voices/out", suffix=(".txt",)),)
    return ServiceDefinition(name="svc", image="i", script=script, **{"outputs": outputs, **fields})


def run(definition, event, folder):
    """Run the service as OSCAR does; nothing is staged in or out, because it has no credentials."""
    return subprocess.run(
        ["/bin/sh", "-c", f"echo $EVENT | {sys.executable} -I {faas.__file__}"],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "TMPDIR": str(folder),
            "EVENT": json.dumps(event),
            "SCRIPT": base64.b64encode(definition.script.encode()).decode(),
            "JOB_UUID": JOB,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


RECORD = {
    "eventSource": "minio:s3",
    "eventTime": "2026-01-01T00:00:00Z",
    "s3": {"bucket": {"name": "voices", "arn": "arn:aws:s3:::voices"}, "object": {"key": "in/a.txt"}},
}


EVENT = {"Records": [RECORD]}


@pytest.fixture
def without_python(tmp_path):
    """A PATH with nothing but what the scripts of these tests call themselves."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("date", "cat"):
        (place / name).symlink_to(f"/bin/{name}")
    return place


def get_manifest(done):
    found = Manifest.from_marker(done.stdout, JOB)
    assert found is not None, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_and_outputs_of_a_script_are_told(tmp_path, code):
    script = 'echo "got $(cat "$INPUT_FILE_PATH" | head -c 2)"\nprintf hello > "$TMP_OUTPUT_DIR/a.txt"\n'
    script += f'printf x > "$TMP_OUTPUT_DIR/b.other"\nexit {code}\n'
    done = run(wrapped(service(script)), EVENT, tmp_path)
    assert done.returncode == 0, "OSCAR's supervisor ignores it"
    assert 'got {"' in done.stdout
    found = get_manifest(done)
    assert (found.exit_code, found.succeeded, found.proof) == (code, code == 0, "wrapped")
    assert found.output_uri == "s3://voices/out/"
    digest = hashlib.sha256(b"hello").hexdigest()
    assert [(each.key, each.size, each.sha256) for each in found.outputs] == [("a.txt", 5, digest)]
    assert found.resources["wall_seconds"] >= 0 if "wall_seconds" in found.resources else found.resources


def test_script_sees_nothing_of_the_wrapping(tmp_path):
    script = "env | sed 's/=.*//' | sort | tr '\\n' ' '; echo; echo '*it'\\''s $(id)*'\n"
    shown = [run(each, EVENT, tmp_path).stdout for each in (service(script), wrapped(service(script)))]
    plain, through = (set(text.split("\n")[0].split()) for text in shown)
    assert through - plain <= {"SUPERVISOR_METRICS_FILE"}
    assert plain - through <= {"_"}
    assert "*it's $(id)*" in shown[1]


def test_marker_printed_by_the_script_is_not_the_verdict(tmp_path):
    lie = '##airflow-oscar-manifest {"version":"1.0","exit_code":0}'
    done = run(wrapped(service(f"echo '{lie}'; exit 4\n")), EVENT, tmp_path)
    assert (get_manifest(done).exit_code, done.stdout.count("##airflow-oscar-manifest")) == (4, 1)


@pytest.mark.parametrize("code", [0, 5])
def test_image_without_python_tells_the_exit_code(tmp_path, without_python, code):
    script = f'echo "here is $JOB_UUID"; printf \'a%%b\' > "$TMP_OUTPUT_DIR/a.txt"; exit {code}\n'
    text = wrapped(service(script)).script.replace("/bin/python3", "/no/such/python3")
    output = tmp_path / "output"
    output.mkdir()
    (tmp_path / "script.sh").write_text(text)
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "script.sh")],
        env={"PATH": str(without_python), "JOB_UUID": JOB, "TMP_OUTPUT_DIR": str(output)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert f"here is {JOB}" in done.stdout
    found = get_manifest(done)
    assert (found.exit_code, found.output_uri, found.proof) == (code, "s3://voices/out/", "wrapped")
    assert (output / "a.txt").read_text() == "a%b"
