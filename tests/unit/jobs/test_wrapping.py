# SPDX-License-Identifier: Apache-2.0
"""A service's own script, wrapped: it sees what it saw before, and its exit code counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.outcome import OutcomeState, evaluate, proves_success
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import Signer
from airflow_provider_oscar.jobs.wrapping import wrapped
from airflow_provider_oscar.operators.oscar_service import load_fdl

JOB = "svc-0123456789abcdef"
MINUTE = timedelta(minutes=1)


def service(script, **fields):
    outputs = (StoragePath(storage_provider="minio.default", path="voices/out", suffix=(".txt",)),)
    return ServiceDefinition(name="svc", image="i", script=script, **{"outputs": outputs, **fields})


def test_success_needs_oscar_to_have_staged_the_outputs_out():
    at = "2026-01-01T00:00:00+00:00"
    fields = {"version": "1.0", "submission_id": JOB, "output_uri": "", "outputs": [], "proof": "wrapped"}
    fields["phases"] = {"queued": {"start": at, "end": at}}

    def state(code, phase):
        found = Manifest.from_dict({**fields, "exit_code": code})
        assert proves_success(found, phase) == (code == 0 and phase is JobPhase.SUCCEEDED)
        return evaluate(JOB, found, phase, age=2 * MINUTE, grace=MINUTE).state

    assert state(0, JobPhase.SUCCEEDED) is OutcomeState.SUCCEEDED
    assert state(0, JobPhase.FAILED) is OutcomeState.FAILED
    assert state(0, JobPhase.RUNNING) is OutcomeState.RUNNING
    assert state(1, JobPhase.SUCCEEDED) is OutcomeState.FAILED


def test_fdl_names_the_script_to_wrap(tmp_path):
    (tmp_path / "infer.sh").write_text("#!/bin/sh\necho hello\n")
    text = "functions: {oscar: [{c: {name: svc, image: i, script: '@wrap infer.sh'}}]}"
    (found,) = load_fdl(text, tmp_path)
    assert "AIRFLOW_OSCAR_WRAP_SCRIPT='#!/bin/sh\necho hello\n'" in found.script
    assert found == wrapped(ServiceDefinition(name="svc", image="i", script="#!/bin/sh\necho hello\n", cluster_id="c"))
    with pytest.raises(DefinitionError, match="leads out of"):
        load_fdl(text.replace("infer.sh", "../infer.sh"), tmp_path / "below")


def test_wrapped_service_is_not_one_of_the_supervisor():
    """It would take a job's specification for its input."""
    definition = wrapped(service("echo\n"))
    assert with_key(definition, Signer((b"key",))) == definition


def test_script_too_long_for_a_variable_is_refused():
    with pytest.raises(DefinitionError, match="longer than the .* bytes that can be wrapped"):
        wrapped(service("x" * 200_000))
