# SPDX-License-Identifier: Apache-2.0
"""One job from submission to result, over a back end of thirty lines.

Keeps row T2 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.cancellation import judge
from airflow_provider_oscar.core.errors import (
    DefinitionError,
    JobFailedError,
    LostContactError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.logs import LINES_LIMIT
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.backend import open_backend
from airflow_provider_oscar.jobs.concluded import Concluded
from airflow_provider_oscar.jobs.lifecycle import JobLifecycle
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.signing import Signer, request_digest
from airflow_provider_oscar.jobs.status import ABSENT, JobStatus
from tests.support.fakes import manifest, marker, signed

JOB = RunningJob(submission_id="j", job_id="j", object_uri="s3://in/a")


@dataclass
class Backend:
    """Jobs in a dictionary."""

    jobs: dict[str, JobStatus] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    display_name = "place 'p'"

    def submit(self, job, work):
        self.calls.append(("submit", work))
        self.jobs[job.job_id] = JobStatus(JobPhase.PENDING)
        return replace(job, submitted_at=datetime.now(UTC).isoformat())

    def status(self, job_id):
        return self.jobs.get(job_id, ABSENT)

    def log(self, job_id):
        self.calls.append(("log", job_id))
        return self.logs.get(job_id)

    def log_chunks(self, job_id):
        self.calls.append(("log_chunks", job_id))
        yield self.logs.get(job_id, "").encode()

    def complete(self, job, prepare):
        self.calls.append(("complete", job.job_id))

    def release(self, job_id):
        self.calls.append(("release", job_id))

    def cancel(self, job_id):
        self.calls.append(("cancel", job_id))
        return judge(found=self.jobs.pop(job_id, None) is not None, pod_gone=True)

    def delete_ended(self, job_id):
        self.calls.append(("delete_ended", job_id))
        self.jobs.pop(job_id, None)

    cleans_up = True

    def submit_new(self, job, prepare):
        return None

    def cleanup(self, job_id, *, succeeded):
        self.calls.append(("cleanup", job_id))


@dataclass
class Bench:
    """A lifecycle with its surroundings."""

    backend: Backend = field(default_factory=Backend)
    stored: object = None
    remembered: list[RunningJob] = field(default_factory=list)
    noted: list[object] = field(default_factory=list)
    finished: list[int | None] = field(default_factory=list)
    unfinished: OscarProviderError | None = None

    def lifecycle(self) -> JobLifecycle[str]:
        def read(job):
            if isinstance(self.stored, Exception):
                raise self.stored
            return self.stored

        return JobLifecycle(
            backend=self.backend,
            read_manifest=read,
            remember=self.remembered.append,
            log=logging.getLogger("test"),
            timeout=60,
            note=lambda *noted: self.noted.append(noted),
            finish=self.finish,
        )

    def finish(self, job, manifest):
        self.finished.append(None if manifest is None else manifest.exit_code)
        if self.unfinished:
            raise self.unfinished

    def start(self, job=JOB):
        return self.lifecycle().start(job, lambda job: f"work of {job.job_id}")

    def conclude(self, phase=JobPhase.SUCCEEDED, *, seconds_ago=0.0, job=JOB, **event):
        at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        ended = {"status": "ended", "phase": phase.value, "ended_at": at.isoformat()}
        return self.lifecycle().conclude(job, ended | event)


@pytest.fixture
def bench():
    return Bench()


def test_a_job_is_remembered_before_it_is_submitted(bench):
    started = bench.start()
    assert bench.backend.calls == [("submit", "work of j")]
    assert [job.submitted_at for job in bench.remembered] == ["", started.submitted_at]


def test_what_cannot_be_submitted_is_remembered_all_the_same(bench, monkeypatch):
    monkeypatch.setattr(bench.backend, "submit", lambda job, work: (_ for _ in ()).throw(TransientError("503")))
    with pytest.raises(TransientError):
        bench.start()
    assert [job.job_id for job in bench.remembered] == ["j"]


@pytest.mark.parametrize("phase", [JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN])
def test_a_job_that_may_still_run_is_adopted(bench, phase):
    bench.backend.jobs["j"] = JobStatus(phase)
    assert bench.start() == JOB
    # One that waits is given what the killed try before may not have come to.
    assert bench.backend.calls == ([("complete", "j")] if phase is JobPhase.PENDING else [])


def test_a_job_that_succeeded_is_not_run_again(bench):
    bench.stored = manifest("j")
    assert isinstance(bench.start(), Concluded)
    assert bench.backend.calls == []
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    assert isinstance(bench.start(), Concluded)
    assert bench.backend.calls == [("cleanup", "j")], "a try that was killed left it"
    assert len(bench.noted) == 2


@pytest.mark.parametrize("phase", [JobPhase.PENDING, JobPhase.RUNNING, JobPhase.UNKNOWN])
def test_a_job_that_succeeded_is_removed_although_its_end_is_not_known_yet(bench, phase):
    mine = replace(JOB, deployment_id="d", request_digest="r", generation=1)
    bench.stored = manifest("j")
    bench.backend.jobs["j"] = JobStatus(phase, owner="d.r.2")  # somebody had it run again
    assert isinstance(bench.start(mine), Concluded)
    assert bench.backend.calls == []
    bench.backend.jobs["j"] = JobStatus(phase, owner=mine.owner)
    assert isinstance(bench.start(mine), Concluded)
    assert bench.backend.calls == [("cleanup", "j")], "nobody comes back to it"


@pytest.mark.parametrize("call", ["log", "cleanup"])
@pytest.mark.parametrize(
    "error", [TransientError("503"), DefinitionError("403, forbidden"), PermanentError("too long")]
)
def test_a_proven_success_is_one_although_its_log_or_its_pod_is_out_of_reach(bench, monkeypatch, call, error):
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    bench.stored = manifest("j")
    monkeypatch.setattr(bench.backend, call, lambda job_id, **_: (_ for _ in ()).throw(error))
    assert bench.conclude().manifest.succeeded
    assert isinstance(bench.start(), Concluded)


def test_outputs_are_made_whole_once_a_job_has_ended_whatever_became_of_it(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    bench.stored = manifest("j")
    bench.conclude()
    bench.start()
    bench.stored = manifest("j", 3)
    with pytest.raises(JobFailedError):
        bench.conclude()
    bench.stored = None
    with pytest.raises(JobFailedError):
        bench.conclude(status="timeout")
    assert bench.finished == [0, 0, 3, None]


def test_a_success_whose_outputs_cannot_be_made_whole_is_tried_again_and_nothing_is_deleted(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    bench.stored, bench.unfinished = manifest("j"), TransientError("store away")
    with pytest.raises(TransientError, match="store away"):
        bench.conclude()
    with pytest.raises(TransientError, match="store away"):
        bench.start()
    assert ("cleanup", "j") not in bench.backend.calls
    bench.unfinished = None
    assert isinstance(bench.start(), Concluded)


def test_a_failure_stays_the_failure_it_is_when_its_outputs_cannot_be_made_whole(bench, caplog):
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    bench.stored, bench.unfinished = manifest("j", 3), TransientError("store away")
    with pytest.raises(JobFailedError):
        bench.conclude()
    assert "cannot be made whole: store away" in caplog.text


def test_what_sbatch_refused_fails_at_once(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.FAILED)
    with pytest.raises(DefinitionError, match="SlurmOptions.partition"):
        bench.conclude(JobPhase.FAILED, reason="ProviderFailed: sbatch: error: Invalid partition name specified")


def test_a_job_that_ended_without_proof_is_replaced(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.FAILED)
    bench.start()
    assert [call for call, _ in bench.backend.calls] == ["log", "delete_ended", "submit"]


def test_what_is_deleted_was_read_before(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.SUCCEEDED)
    bench.stored = manifest("j")
    assert bench.conclude().manifest.succeeded
    assert [call for call, _ in bench.backend.calls] == ["log", "cleanup"]


def test_lines_that_were_shown_while_the_job_ran_are_not_shown_again(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.stored = manifest("j")
    bench.backend.logs["j"] = "one\ntwo\nthree without newline"
    bench.conclude(job=replace(JOB, log_lines=1), log_lines=2)
    messages = [record.getMessage() for record in caplog.records]
    assert [line for line in messages if line.split()[0] in ("one", "two", "three")] == ["three without newline"]


def test_every_line_of_a_long_log_is_shown_once(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.stored = manifest("j")
    count = 3 * LINES_LIMIT + 7
    bench.backend.logs["j"] = "".join(f"line {number}\n" for number in range(count))
    bench.conclude()
    shown = [record.getMessage() for record in caplog.records if record.getMessage().startswith("line ")]
    assert shown == [f"line {number}" for number in range(count)]


def test_a_group_marker_of_the_job_does_not_close_ours(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.stored = manifest("j")
    bench.backend.logs["j"] = "::endgroup::\n  ::group::mine\n##[endgroup]\n"
    bench.conclude()
    messages = [record.getMessage() for record in caplog.records]
    assert [line for line in messages if line.startswith("::")] == ["::group::Log of the job", "::endgroup::"]


def test_a_manifest_may_still_be_on_its_way(bench):
    assert bench.conclude(seconds_ago=1) is None
    with pytest.raises(LostContactError, match="s3://in/a"):
        bench.conclude(seconds_ago=600)


def test_the_marker_line_counts_while_the_store_is_away(bench):
    bench.stored = TransientError("store away")
    bench.backend.logs["j"] = marker(manifest("j"))
    assert bench.conclude().manifest.submission_id == "j"
    bench.backend.logs["j"] = ""
    with pytest.raises(TransientError, match="store away"):
        bench.conclude()


def test_a_store_that_restarts_fails_no_submission_and_no_result(bench):
    waited = []

    def back_after(looks, found):
        def read(_):
            if len(waited) < looks:
                raise TransientError("the store restarts")
            return found

        return read

    life = bench.lifecycle()
    life.pauses, life.sleep = (1.0, 2.0, 4.0), waited.append
    life.read_manifest = back_after(2, None)
    life.start(JOB, lambda job: f"work of {job.job_id}")
    assert (bench.backend.calls, waited) == ([("submit", "work of j")], [1.0, 2.0])

    waited.clear()
    life.read_manifest = back_after(99, None)
    with pytest.raises(TransientError, match="the store restarts"):
        life.start(JOB, str)
    assert waited == [1.0, 2.0, 4.0], "bounded"


def test_what_a_job_needs_of_a_store_is_asked_for_again_while_it_is_away(bench):
    waited = []

    def prepare(job):
        if len(waited) < 2:
            raise TransientError("the store restarts")
        return "work"

    life = bench.lifecycle()
    life.pauses, life.sleep = (1.0, 2.0, 4.0), waited.append
    life.start(JOB, prepare)
    assert (bench.backend.calls, waited) == ([("submit", "work")], [1.0, 2.0])


def test_a_job_beyond_its_deadline_is_cancelled(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.RUNNING)
    with pytest.raises(JobFailedError, match="within 60 seconds and was cancelled"):
        bench.conclude(status="timeout")
    with pytest.raises(JobFailedError, match="was not there any more"):
        bench.conclude(status="timeout")


def test_a_job_that_does_not_start_is_cancelled_and_the_reason_is_named(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.PENDING)
    with pytest.raises(TransientError, match=r"did not start.*ReqNodeNotAvail.*raise queue_timeout"):
        bench.conclude(status="queue_timeout", reason="ReqNodeNotAvail")
    assert bench.backend.jobs == {}


def test_a_place_that_cannot_be_looked_at_leaves_the_job_running(bench):
    bench.backend.jobs["j"] = JobStatus(JobPhase.RUNNING)
    with pytest.raises(TransientError, match="left running: 401"):
        bench.conclude(status="error", message="401")
    assert "j" in bench.backend.jobs


@pytest.mark.parametrize("name", ["", "no_such_system", "../oscar", "backend", "Oscar"])
def test_an_unknown_backend_is_named(name):
    with pytest.raises(DefinitionError, match="job backend"):
        open_backend(name, {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("oscar", {"conn_id": "c", "service": "s"}),
        ("interlink", {"conn_id": "c", "namespace": "n", "node": "vk"}),
        ("kubernetes", {"conn_id": "c", "namespace": "n", "node": ""}),
    ],
)
def test_a_backend_is_made_again_from_what_it_stores(name, arguments):
    backend = open_backend(name, arguments)
    assert (backend.name, backend.arguments()) == (name, arguments)
    assert backend.key == open_backend(name, arguments).key


def test_a_backend_refuses_arguments_it_does_not_know():
    with pytest.raises(DefinitionError, match="cannot be made"):
        open_backend("oscar", {"conn_id": "c", "servise": "s"})


OURS = replace(JOB, request_digest="d1", deployment_id="here")


@pytest.mark.parametrize("owner", ["-", "elsewhere.d1.0", "nobody"])
def test_a_job_of_somebody_else_is_neither_adopted_nor_removed(bench, owner):
    bench.backend.jobs["j"] = JobStatus(JobPhase.RUNNING, owner=owner)
    with pytest.raises(PermanentError, match="belongs to somebody else"):
        bench.start(OURS)
    assert bench.backend.calls == []
    assert "j" in bench.backend.jobs


@pytest.mark.parametrize("owner", ["here.d0.0", "here.d1.7"], ids=["request", "generation"])
def test_a_job_of_another_request_for_the_same_work_is_replaced(bench, owner):
    bench.backend.jobs["j"] = JobStatus(JobPhase.RUNNING, owner=owner)
    bench.start(OURS)
    assert [call for call, _ in bench.backend.calls] == ["delete_ended", "submit"]


def test_a_fresh_start_believes_and_adopts_nothing(bench):
    bench.stored = manifest("j")
    bench.backend.jobs["j"] = JobStatus(JobPhase.RUNNING)
    bench.lifecycle().start(JOB, lambda job: "work", fresh=True)
    assert [call for call, _ in bench.backend.calls] == ["delete_ended", "submit"]


SIGNER = Signer((b"master",))


def signed_bench():
    bench = Bench()
    unsigned = bench.lifecycle
    bench.lifecycle = lambda: replace(unsigned(), verifies=SIGNER.verifies)
    return bench


def forged(**changes):
    return Manifest.from_dict(manifest("j").to_dict() | changes)


@pytest.mark.parametrize(
    "found",
    [
        manifest("j"),
        forged(signature="hmac-sha256:" + "0" * 64),
        signed(manifest("j"), Signer((b"other",)).key(OURS)),
        signed(manifest("j"), SIGNER.key(replace(OURS, generation=1))),
        signed(manifest("j"), SIGNER.key(replace(OURS, request_digest="d0"))),
        Manifest.from_dict(signed(manifest("j", 1), SIGNER.key(OURS)).to_dict() | {"exit_code": 0}),
    ],
    ids=["unsigned", "made up", "other key", "other attempt", "other request", "changed afterwards"],
)
def test_a_result_that_is_not_signed_for_this_submission_proves_nothing(found):
    bench = signed_bench()
    bench.stored = found
    bench.backend.logs["j"] = marker(found)
    assert not isinstance(bench.start(OURS), Concluded)
    with pytest.raises(LostContactError):
        bench.conclude(job=OURS, seconds_ago=600)


def test_what_the_supervisor_signed_is_believed_in_the_store_and_in_the_log():
    found = signed(manifest("j"), SIGNER.key(OURS))
    bench = signed_bench()
    bench.stored = found
    assert bench.conclude(job=OURS).manifest.succeeded
    bench.stored = None
    bench.backend.logs["j"] = "noise\n" + marker(found) + marker(manifest("j", 1))
    assert bench.conclude(job=OURS).manifest.succeeded


def test_the_stored_manifest_wins_over_the_log():
    bench = signed_bench()
    bench.stored = signed(manifest("j", 3), SIGNER.key(OURS))
    bench.backend.logs["j"] = marker(signed(manifest("j", 0), SIGNER.key(OURS)))
    with pytest.raises(JobFailedError):
        bench.conclude(JobPhase.FAILED, job=OURS)


def test_keys_can_be_rotated():
    found = signed(manifest("j"), Signer((b"old",)).key(OURS))
    assert Signer.from_setting("new, old").verifies(OURS, found)
    assert Signer.from_setting("new,old").deployment_id == Signer.from_setting("old").deployment_id
    assert not Signer.from_setting("new").verifies(OURS, found)


def test_without_a_key_the_remedy_is_named():
    with pytest.raises(DefinitionError, match="signing_key"):
        Signer.from_setting("  ,")


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text()), max_size=4))
def test_the_digest_of_a_request_depends_on_its_contents_alone(request_):
    backwards = dict(reversed(request_.items()))
    assert request_digest(request_) == request_digest(backwards)
    assert request_digest(request_) != request_digest({**request_, "\0more": 1})
