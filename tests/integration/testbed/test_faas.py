# SPDX-License-Identifier: Apache-2.0
"""The FaaS Supervisor as a process: what a script gets, and what upstream does against expectation."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile

import pytest
from oscar_testbed.fakes.oscar import faas

from tests.support.object_events import MINIO_EVENT


@pytest.fixture
def supervisor(tmp_path):
    """Run the program with an event on standard input, in a sandbox of its own."""
    config = tmp_path / "oscar" / "config"
    config.mkdir(parents=True)

    def run(event: str | bytes, script: str = "true", definition: dict | None = None, **environment: str):
        (config / "function_config.yaml").write_text(json.dumps(definition or {}))
        (config / "script.sh").write_text(script)
        data = event if isinstance(event, bytes) else event.encode()
        return subprocess.run(
            [sys.executable, "-I", faas.__file__],
            input=data,
            capture_output=True,
            check=False,
            env={"PATH": os.environ["PATH"], "CONTAINER_SANDBOX_MOUNT_POINT": str(tmp_path), **environment},
        )

    return run


def test_base64_body_becomes_the_input_file(supervisor):
    body = b'{"job": "\xc3\xa4 $(id) `x` \\n"}'
    done = supervisor(base64.b64encode(body), 'cat "$INPUT_FILE_PATH"; test -z "$EVENT_TIME$STORAGE_OBJECT_KEY"')
    assert done.returncode == 0
    assert done.stdout.rstrip(b"\n") == body


def test_exit_code_of_the_script_is_ignored_unless_strict(supervisor):
    assert supervisor("{}", "echo out; exit 3").returncode == 0
    strict = supervisor("{}", "echo out; exit 3", SUPERVISOR_STRICT="1")
    assert strict.returncode == 3
    assert strict.stdout.strip() == b"out"


def test_text_that_is_neither_json_nor_base64_fails(supervisor):
    done = supervisor("hello, world!")
    assert done.returncode == 1
    assert b"could not be handled" in done.stderr


def test_missing_credentials_hand_over_the_event_itself(supervisor):
    definition = {"output": [{"storage_provider": "minio.default", "path": "out"}]}
    done = supervisor(json.dumps(MINIO_EVENT), 'cat "$INPUT_FILE_PATH"; touch "$TMP_OUTPUT_DIR/x"', definition)
    assert done.returncode == 0
    assert json.loads(done.stdout) == MINIO_EVENT
    assert b"Found 'LOCAL' input provider" in done.stderr


def test_file_stage_in_true_means_no_stage_in(supervisor):
    done = supervisor(
        json.dumps(MINIO_EVENT), 'echo "${INPUT_FILE_PATH-unset} $STORAGE_OBJECT_KEY"', {"file_stage_in": True}
    )
    assert done.stdout.strip() == b"unset a b/c.txt"


def test_no_script_is_no_error(supervisor, tmp_path):
    supervisor("{}")
    (tmp_path / "oscar/config/script.sh").unlink()
    config = {"PATH": os.environ["PATH"], "CONTAINER_SANDBOX_MOUNT_POINT": str(tmp_path)}
    done = subprocess.run([sys.executable, faas.__file__], input=b"{}", capture_output=True, check=False, env=config)
    assert done.returncode == 0
    assert b"No user script" in done.stderr


def test_answer_to_an_unknown_event_is_the_output_in_base64(supervisor):
    one = supervisor("{}", 'printf 1 > "$TMP_OUTPUT_DIR/a"')
    assert base64.b64decode(one.stdout) == b"1"
    two = supervisor("{}", 'cd "$TMP_OUTPUT_DIR"; printf 1 > a; mkdir d; printf 2 > d/b')
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(two.stdout))) as archive:
        assert sorted(archive.namelist()) == ["a", "d/b"]


def test_log_level_hides_the_supervisors_lines(supervisor):
    assert supervisor("{}", "true", {"log_level": "CRITICAL"}).stderr == b""


def test_named_provider_without_keys_is_an_error(supervisor):
    definition = {"storage_providers": {"minio": {"ext": {"endpoint": "http://127.0.0.1:1"}}}}
    event = json.dumps({"storage_provider": "ext", "event": MINIO_EVENT})
    done = supervisor(event, "true", definition)
    assert done.returncode == 1
    assert b"minio.ext lacks access_key, secret_key" in done.stderr
