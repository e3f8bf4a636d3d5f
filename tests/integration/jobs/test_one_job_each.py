# SPDX-License-Identifier: Apache-2.0
"""One submission makes one job, whatever fails on the way and however old the server is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from airflow_provider_oscar.core.errors import LostContactError, TransientError
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.oscar.submissions import JobRequest
from airflow_provider_oscar.jobs.oscar import OscarBackend, OscarWork
from airflow_provider_oscar.jobs.running import RunningJob
from airflow_provider_oscar.jobs.unnamed import UnnamedJobs
from tests.support.oscar_faults import FaultyTransport, connect, embedded_oscar

INPUT = {"input": [{"storage_provider": "minio.default", "path": "svc/in"}]}


def submit(name, tries=3):
    """What a task does, and its retries."""
    backend = OscarBackend(conn_id="oscar_default", service="svc", sleep=lambda _: None)
    for left in reversed(range(tries)):
        try:
            return backend.submit(RunningJob(submission_id=name, job_id=name), OscarWork(b"aGk=")).job_id
        except TransientError:
            if not left:
                raise
    raise AssertionError


@pytest.fixture
def notes(monkeypatch, tmp_path):
    monkeypatch.setattr("airflow_provider_oscar.jobs.unnamed.notes_folder", lambda: tmp_path / "notes")


@pytest.mark.parametrize("seed", range(2))
def test_200_submissions_without_retries_make_200_jobs(monkeypatch, tmp_path, seed):
    with embedded_oscar(tmp_path) as (oscar, url), httpx.HTTPTransport() as direct:
        faulty = FaultyTransport(direct, 0.1, seed=seed)
        connect(monkeypatch, url, faulty)
        jobs = [submit(f"svc-{number}", tries=1) for number in range(200)]
        assert sorted(jobs) == sorted(oscar.runner.jobs("svc"))
        assert len(set(jobs)) == 200
        assert faulty.failed > 60


@pytest.mark.parametrize("version", ["v3.6.0", "v3.6.5", "v4.0.0"])
def test_60_submissions_to_an_old_server_make_60_jobs(monkeypatch, tmp_path, notes, version):
    with embedded_oscar(tmp_path, version=version) as (oscar, url), httpx.HTTPTransport() as direct:
        faulty = FaultyTransport(direct, 0.15, seed=1)
        connect(monkeypatch, url, faulty)
        with ThreadPoolExecutor(4) as pool:
            jobs = list(pool.map(submit, [f"svc-{number}" for number in range(60)]))
        assert sorted(jobs) == sorted(oscar.runner.jobs("svc"))
        assert len(set(jobs)) == 60
        assert faulty.failed > 20


def test_a_process_that_dies_after_the_request_leaves_one_job(monkeypatch, tmp_path, notes):
    with embedded_oscar(tmp_path, version="v3.6.0") as (oscar, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)

        class DiesError(Exception):
            pass

        def dies(*_, **__):
            raise DiesError

        with monkeypatch.context() as dying:
            dying.setattr(UnnamedJobs, "_ours", dies)
            with pytest.raises(DiesError):
                submit("svc-1")
        assert len(oscar.runner.jobs("svc")) == 1
        assert [submit("svc-1")] == list(oscar.runner.jobs("svc"))
        assert submit("svc-2") != submit("svc-3")
        assert len(oscar.runner.jobs("svc")) == 3


def test_it_is_not_guessed_which_of_several_jobs_is_ours(monkeypatch, tmp_path, notes):
    with embedded_oscar(tmp_path, version="v3.6.0") as (oscar, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        flow = OscarHook.send_job

        def send(hook, job, name):
            oscar.submit()  # another client's
            return (yield from flow(hook, job, name))

        monkeypatch.setattr(OscarHook, "send_job", send)
        with pytest.raises(LostContactError, match="not guessed which is ours"):
            submit("svc-1")


def test_a_job_that_a_file_may_have_started_is_not_taken_after_an_unclear_answer(monkeypatch, tmp_path, notes):
    with embedded_oscar(tmp_path, version="v3.6.0", **INPUT) as (oscar, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)

        def send(hook, job, name):
            oscar.submit()
            raise TransientError("reset")
            yield

        monkeypatch.setattr(OscarHook, "send_job", send)
        with pytest.raises(LostContactError, match="its own inputs|service's own inputs"):
            submit("svc-1")


def test_one_submission_at_a_time_has_the_service(monkeypatch, tmp_path):
    monkeypatch.setattr("airflow_provider_oscar.jobs.unnamed._LOCK_SECONDS", 0.05)
    with embedded_oscar(tmp_path, version="v3.6.0") as (_, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        waits = threading.Event()
        first, second = (UnnamedJobs(OscarHook(), "svc", folder=tmp_path / "n", sleep=lambda _: None) for _ in "ab")
        with first._lock(), pytest.raises(TransientError, match="takes one at a time"):
            second.submit(JobRequest("svc", b"aGk=", named=False), "svc-1")
        waits.set()


@pytest.mark.parametrize("version", ["v4.1.2", "v4.1.0", "v5.0.0"])
def test_a_new_submission_costs_two_requests_however_many_jobs_the_service_has(monkeypatch, tmp_path, version):
    with embedded_oscar(tmp_path, version=version) as (oscar, url), httpx.HTTPTransport() as direct:
        for number in range(300):
            oscar.submit(name=f"old-{number}")
        counting = FaultyTransport(direct, 0.0, seed=0)
        connect(monkeypatch, url, counting)
        backend = OscarBackend(conn_id="oscar_default", service="svc")
        job = RunningJob(submission_id="svc-1", job_id="svc-1")
        assert backend.submit_new(job, lambda _: OscarWork(b"aGk=")) is not None
        assert counting.sent == 2
        assert backend.submit_new(job, lambda _: OscarWork(b"aGk=")) is None, "it is there, and has to be looked at"
        counting.sent = 0
        backend.observe()
        assert counting.sent <= 4


@pytest.mark.parametrize(("keep", "left"), [("all", ["bad", "good"]), ("failed", ["bad"]), ("none", [])])
def test_jobs_that_ended_stay_as_keep_jobs_says(monkeypatch, tmp_path, keep, left):
    with embedded_oscar(tmp_path) as (oscar, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        for name in ("good", "bad"):
            oscar.submit(name=name)
        backend = OscarBackend(conn_id="oscar_default", service="svc", keep_jobs=keep)
        assert backend.cleans_up is (keep != "all")
        backend.cleanup("good", succeeded=True)
        backend.cleanup("bad", succeeded=False)
        assert sorted(oscar.runner.jobs("svc")) == left


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("s3://svc/in/a.txt", True),
        ("s3://svc/in/deep/a%20b.txt", True),
        ("s3://svc/other/a.txt", False),
        ("s3://svc/inner.txt", False),
        ("dcache://c/svc/in/a.txt", False),
        ("", False),
    ],
)
def test_a_task_says_that_oscar_runs_its_object_by_itself_as_well(monkeypatch, tmp_path, caplog, uri, warned):
    with embedded_oscar(tmp_path, **INPUT) as (_, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        job = RunningJob(submission_id="svc-1", job_id="svc-1", object_uri=uri)
        OscarBackend(conn_id="oscar_default", service="svc").submit(job, OscarWork(b"aGk="))
        assert ("processed twice" in caplog.text) is warned


def test_only_names_that_the_input_takes_are_run_by_oscar(monkeypatch, tmp_path, caplog):
    entry = {"storage_provider": "minio", "path": "svc/in", "suffix": [".h5", ".nc"]}
    with embedded_oscar(tmp_path, input=[entry]) as (_, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        for number, name in enumerate(("a.txt", "a.nc")):
            job = RunningJob(submission_id=f"s{number}", job_id=f"s{number}", object_uri=f"s3://svc/in/{name}")
            OscarBackend(conn_id="oscar_default", service="svc").submit(job, OscarWork(b"aGk="))
            assert ("processed twice" in caplog.text) is (name == "a.nc")


def test_a_job_for_a_virtual_node_is_not_sent_where_it_would_run_in_the_cloud(monkeypatch, tmp_path):
    with embedded_oscar(tmp_path, interlink_node_name="vega") as (oscar, url), httpx.HTTPTransport() as direct:
        connect(monkeypatch, url, direct)
        with pytest.raises(TransientError, match="would run the job in the cloud"):
            submit("svc-1", tries=1)
        assert oscar.runner.jobs("svc") == {}
