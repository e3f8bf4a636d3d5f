# SPDX-License-Identifier: Apache-2.0
"""What is deleted has been saved first, and what is to be kept stays."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import JobFailedError, OscarProviderError, TransientError
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.joblog import LOG_NAME, PACKED_LOG_NAME, PLAIN_LIMIT, store_log
from airflow_provider_oscar.jobs.lifecycle import JobLifecycle
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.status import JobStatus
from tests.support.fakes import manifest
from tests.unit.jobs.test_lifecycle import JOB, Backend, Bench


@dataclass
class Saving(Bench):
    """A lifecycle whose store takes logs."""

    saved: dict[str, bytes] = field(default_factory=dict)
    fault: OscarProviderError | None = None
    keep: str = "never"

    def lifecycle(self) -> JobLifecycle[str]:
        def save(job, chunks):
            if self.fault:
                raise self.fault
            self.saved[job.submission_id] = b"".join(chunks)
            self.backend.calls.append(("saved", job.job_id))
            return f"s3://out/{job.submission_id}/job.log"

        return replace(super().lifecycle(), save_log=save, keep=self.keep)


def bench(**changes):
    made = Saving(backend=Backend(logs={"j": "step 1\nkilled"}), **changes)
    made.backend.jobs["j"] = JobStatus(JobPhase.FAILED)
    return made


def with_log(found, key="job.log"):
    return Manifest.from_dict({**found.to_dict(), "log": {"key": key}})


def names(made):
    return [call for call, _ in made.backend.calls]


def test_the_log_of_a_job_that_was_killed_is_saved_before_its_pod_goes():
    made = bench()
    with pytest.raises(TransientError):
        made.conclude(JobPhase.FAILED, seconds_ago=600)
    assert made.saved == {"j": b"step 1\nkilled"}
    assert names(made)[-2:] == ["saved", "cleanup"]


@pytest.mark.parametrize("code", [0, 3])
def test_a_log_that_the_supervisor_saved_is_not_saved_again(code):
    made = bench()
    made.stored = with_log(manifest("j", code))
    if code:
        with pytest.raises(JobFailedError):
            made.conclude()
    else:
        made.conclude()
    assert made.saved == {}
    assert names(made)[-1] == "cleanup"


def test_a_log_that_the_supervisor_could_not_save_is_saved_by_us():
    made = bench()
    made.stored = with_log(manifest("j"), key=None)
    made.conclude()
    assert made.saved == {"j": b"step 1\nkilled"}


def test_a_pod_whose_log_cannot_be_saved_stays_without_its_secret(caplog):
    made = bench(fault=TransientError("the store is away"))
    with caplog.at_level(logging.INFO), pytest.raises(TransientError):
        made.conclude(JobPhase.FAILED, seconds_ago=600)
    assert names(made)[-1] == "release"
    assert "the store is away" in caplog.text
    assert "is left where it ran, because its log is saved nowhere else" in caplog.text


@pytest.mark.parametrize(
    ("keep", "code", "kept"),
    [("never", 0, False), ("never", 3, False), ("on_failure", 0, False), ("on_failure", 3, True)]
    + [("always", 0, True), ("always", 3, True)],
)
def test_keep_pod_decides_what_stays(keep, code, kept):
    made = bench(keep=keep)
    made.stored = with_log(manifest("j", code))
    if code:
        with pytest.raises(JobFailedError):
            made.conclude()
    else:
        made.conclude()
    assert names(made)[-1] == ("release" if kept else "cleanup")


def test_a_job_that_is_cancelled_in_time_has_its_log_saved_and_shown_before(caplog):
    made = bench()
    made.backend.jobs["j"] = JobStatus(JobPhase.RUNNING)
    with caplog.at_level(logging.INFO), pytest.raises(JobFailedError, match="did not end within"):
        made.lifecycle().conclude(JOB, {"status": "timeout"})
    assert made.saved == {"j": b"step 1\nkilled"}
    assert names(made)[-1] == "cancel"
    assert "step 1" in caplog.text


def test_a_job_that_never_started_is_said_to_have_waited_and_for_what():
    event = {"status": "timeout", "phase": "pending", "reason": "Unschedulable: 0/2 nodes are available"}
    with pytest.raises(JobFailedError, match="still waiting to start after .*'Unschedulable: 0/2 nodes are available'"):
        bench().lifecycle().conclude(JOB, event)


def test_a_job_is_cancelled_although_its_log_cannot_be_saved():
    made = bench(fault=TransientError("the store is away"))
    made.lifecycle().cancel(JOB, patience=5.0)
    assert ("cancel", "j") in made.backend.calls


def test_what_a_killed_try_left_is_saved_before_it_is_replaced():
    made = bench()
    made.start()
    assert names(made)[-3:] == ["saved", "delete_ended", "submit"]


def test_what_a_killed_try_left_is_not_replaced_while_its_log_cannot_be_saved():
    made = bench(fault=TransientError("the store is away"))
    with pytest.raises(TransientError, match="is not removed while its log cannot be saved"):
        made.start()
    assert "delete_ended" not in names(made)


class Objects(dict):
    def put_bytes(self, container, key, data):
        self[container, key] = data


@given(st.lists(st.binary(max_size=40)))
def test_a_saved_log_is_what_was_printed(chunks):
    store = Objects()
    uri = store_log(store, "s3://out/results/j", iter(chunks))
    whole = b"".join(chunks)
    assert store == ({("out", f"results/j/{LOG_NAME}"): whole} if whole else {})
    assert uri == (f"s3://out/results/j/{LOG_NAME}" if whole else "")


def test_a_long_log_is_compressed_as_the_supervisor_does_it():
    store = Objects()
    chunk = b"0123456789abcde\n" * 4096
    chunks = [chunk] * (PLAIN_LIMIT // len(chunk) + 1)
    assert store_log(store, "dcache://d/results/j", iter(chunks)) == f"dcache://d/results/j/{PACKED_LOG_NAME}"
    assert gzip.decompress(store["/results/j", PACKED_LOG_NAME]) == b"".join(chunks)
