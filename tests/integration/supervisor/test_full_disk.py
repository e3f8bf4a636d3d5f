# SPDX-License-Identifier: Apache-2.0
"""The scratch disk of a compute node is full: it is said, is no fault of the job, and no result is lost for a log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.failures import job_error
from airflow_provider_oscar.jobs.outcome import evaluate
from tests.support.http_store import Store
from tests.support.supervised import SUBMISSION, job, source

KIB = 1024
BIG = b"x" * 600 * KIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB where the supervisor works."""
    place = tmp_path / "work"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode or os.geteuid() != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_an_input_that_finds_no_room_is_a_matter_for_another_node(store: Store, supervise, small_disk):
    run = supervise(job(store, ["true"], input=source(store, BIG)))
    assert (run.error["reason"], run.error["permanent"], run.error["stage"]) == ("local-file", False, "stage-in")
    assert "No space left on device" in run.message
    outcome = evaluate(SUBMISSION, run.manifest, JobPhase.FAILED, age=timedelta(0), grace=timedelta(minutes=1))
    error = job_error(
        outcome, run.manifest, display_name="here", object_uri="", reported="", exit_code=run.code, log=""
    )
    assert isinstance(error, TransientError), "it is tried again, as retries says"


def test_a_command_that_finds_no_room_fails_with_its_own_code_and_words(store: Store, supervise, small_disk):
    command = ["/bin/sh", "-c", 'head -c 600000 /dev/zero > "$TMP_OUTPUT_DIR/big" || exit 5']
    run = supervise(job(store, command))
    assert (run.code, run.manifest.exit_code) == (5, 5)
    assert "space" in (run.out + run.err).lower()


def test_a_log_that_finds_no_room_costs_the_log_and_not_the_result(store: Store, supervise, small_disk):
    command = ["/bin/sh", "-c", 'printf ok > "$TMP_OUTPUT_DIR/small"; head -c 600000 /dev/zero | tr "\\0" "x"']
    run = supervise(job(store, command))
    assert run.code == 0, run.err
    assert [each["key"] for each in run.raw["outputs"]] == ["small"]
