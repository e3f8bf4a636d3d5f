# SPDX-License-Identifier: Apache-2.0
"""SLURM's REST API in the forms of several generations, and what a cancellation may say.

Keeps row T11 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.cancellation import ended, judge
from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.orphans import SlurmJob
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.core.podstatus import PodStatus
from airflow_provider_oscar.core.slurm_queue import SlurmQueue, summarize_queue
from airflow_provider_oscar.hooks.interlink.cancel import cancel_pod
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.slurm import SlurmHook


class Slurmrestd:
    """Jobs by number; ``list_of_words`` is the newer form of a state."""

    def __init__(self, *, list_of_words=False):
        self.jobs, self.deleted, self.seen = {}, [], []
        self.list_of_words = list_of_words
        self.deletion_works = True

    def __call__(self, request):
        self.seen.append((request.method, request.url.path, request.headers.get("X-SLURM-USER-TOKEN")))
        path = request.url.path
        if path == "/openapi/v3":
            found = ("/slurm/v0.0.37/job/{job_id}", "/slurm/v0.0.38/job/{job_id}", "/slurmdb/v0.0.38/jobs")
            return httpx.Response(200, json={"paths": dict.fromkeys(found, {})})
        if path.endswith("/jobs"):
            return httpx.Response(200, json={"jobs": [self._job(number) for number in self.jobs]})
        number = path.rpartition("/")[2]
        if number not in self.jobs:
            return httpx.Response(500, json={"errors": [{"error": "Invalid job id specified", "error_number": 2017}]})
        if request.method == "DELETE":
            self.deleted.append(number)
            if self.deletion_works:
                self.jobs[number] = "CANCELLED"
            return httpx.Response(200, json={"errors": []})
        return httpx.Response(200, json={"errors": [], "jobs": [self._job(number)]})

    def _job(self, number):
        state = self.jobs[number]
        words = [state] if self.list_of_words else state
        return {"job_id": int(number), "job_state": words, "state_reason": "None", "name": "dag.task", "comment": None}


def slurm_hook(server, **extra):
    made = SlurmHook(
        connection=Connection(
            conn_id="slurm_default",
            conn_type="http",
            host="slurm",
            port=6820,
            login="u",
            password="t",
            extra=json.dumps(extra),
        )
    )
    transport = httpx.MockTransport(server)
    opened = made.client
    made.client = lambda: httpx.Client(base_url=opened().base_url, headers=opened().headers, transport=transport)
    return made


@pytest.mark.parametrize("newer", [False, True])
def test_a_job_is_read_in_either_form(newer):
    server = Slurmrestd(list_of_words=newer)
    server.jobs["17"] = "RUNNING"
    hook = slurm_hook(server)
    assert hook.job("17") == SlurmJob("17", "RUNNING", name="dag.task")
    assert hook.jobs() == [hook.job("17")]
    assert server.seen[1][1:] == ("/slurm/v0.0.38/job/17", "t")


def test_a_job_that_slurm_forgot_is_none_and_its_cancellation_no_error():
    hook = slurm_hook(Slurmrestd(), api_version="v0.0.40")
    assert hook.job("5") is None
    hook.cancel("5")


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("COMPLETING", "COMPLETING"),
        (["CANCELLED", "COMPLETING"], "COMPLETING"),
        (["PENDING", "COMPLETING"], "COMPLETING"),
        (["COMPLETED", "STAGE_OUT"], "STAGE_OUT"),
        (["CANCELLED"], "CANCELLED"),
        (["RUNNING", "CONFIGURING"], "RUNNING"),
        ([], ""),
    ],
)
def test_a_job_that_still_holds_its_nodes_has_not_ended_in_any_form(state, word):
    job = SlurmJob.from_api({"job_id": 17, "job_state": state})
    assert job.state == word
    assert ended(job.state) == (word in ("CANCELLED", ""))


@pytest.mark.parametrize(
    ("status", "number", "word"),
    [
        (511, 1007, "Protocol authentication error"),  # 24.11.5, 26.05.5
        (500, -1, "Unspecified error"),  # 22.05.8
        (401, None, "Authentication failure"),
    ],
)
def test_a_token_that_has_expired_is_said_by_any_generation(status, number, word):
    errors = [{"description": "Unable to query jobs", "error_number": number, "error": word}]
    hook = slurm_hook(
        lambda request: httpx.Response(status, json={"jobs": [], "errors": errors}), api_version="v0.0.42"
    )
    with pytest.raises(TransientError, match="connection 'slurm_default'.*tokens of 'scontrol token' live half an"):
        hook.job("5")


@pytest.mark.parametrize("status", [401, 403, 500, 502])
def test_an_api_that_does_not_answer_says_nothing_of_the_job(status):
    hook = slurm_hook(lambda request: httpx.Response(status), api_version="v0.0.40")
    with pytest.raises(TransientError, match="connection 'slurm_default'"):
        hook.job("5")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>log in</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "http://169.254.169.254/"}),
    ],
    ids=["a page", "a list", "null", "nothing", "a redirect"],
)
def test_what_is_not_slurm_does_not_say_that_a_job_is_gone(answer):
    hook = slurm_hook(lambda request: answer, api_version="v0.0.40")
    with pytest.raises(TransientError, match="is not slurmrestd"):
        hook.job("5")


@pytest.mark.parametrize("number", ["", "5/../jobs", "٣", "1 2"])
def test_what_is_no_number_never_gets_into_a_path(number):
    with pytest.raises(DefinitionError, match="is not the number"):
        slurm_hook(Slurmrestd(), api_version="v0.0.40").job(number)


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())))
def test_any_job_can_be_read(job):
    assert isinstance(SlurmJob.from_api(job), SlurmJob)


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def slurm_job(state, *, partition="gpu", reason="Priority", starts=None):
    start = {"set": starts is not None, "number": 0 if starts is None else int(NOON.timestamp()) + starts}
    return SlurmJob.from_api(
        {"job_id": 1, "job_state": [state], "partition": partition, "state_reason": reason, "start_time": start}
    )


def test_the_queue_of_a_partition_is_what_stands_in_a_newcomers_way():
    jobs = [
        slurm_job("RUNNING", starts=-600),
        slurm_job("PENDING", starts=60),
        slurm_job("PENDING", partition="cpu,gpu", starts=300),
        slurm_job("PENDING"),
        slurm_job("PENDING", reason="JobHeldUser", starts=9000),
        slurm_job("PENDING", reason="Dependency"),
        slurm_job("PENDING", partition="cpu", starts=5000),
        slurm_job("COMPLETED"),
    ]
    assert summarize_queue(jobs, "gpu", now=NOON) == SlurmQueue(waiting=3, running=1, start_in=300.0)
    assert summarize_queue(jobs, "", now=NOON).waiting == 4
    assert summarize_queue([], "gpu", now=NOON) == SlurmQueue(waiting=0, running=0)
    assert summarize_queue([slurm_job("PENDING", starts=-5)], "gpu", now=NOON).start_in == 0.0


def test_the_queue_is_asked_of_slurm():
    server = Slurmrestd()
    server.jobs.update({"1": "RUNNING", "2": "PENDING"})
    assert slurm_hook(server, api_version="v0.0.40").queue() == SlurmQueue(waiting=1, running=1)


def test_an_answer_without_end_is_not_read(monkeypatch):
    monkeypatch.setattr("airflow_provider_oscar.hooks.slurm.hook.ANSWER_LIMIT", 20)
    server = Slurmrestd()
    server.jobs["1"] = "RUNNING"
    with pytest.raises(TransientError, match="more than 20 bytes"):
        slurm_hook(server, api_version="v0.0.40").jobs()


class Cluster(InterLinkHook):
    """One pod, whose deletion interLink passes on, or not."""

    def __init__(self, server=None, *, passes_on=True, stuck=False):
        super().__init__(connection=Connection(conn_id="i", conn_type="interlink", extra="{}"))
        self.pod = PodStatus("j", JobPhase.RUNNING, slurm_job_id="17", node="hpc")
        self.server, self.passes_on, self.stuck, self.waited = server, passes_on, stuck, 0.0
        self.sleep = self._pass
        self.slurm = None if server is None else slurm_hook(server, api_version="v0.0.40")

    def _pass(self, seconds):
        self.waited += seconds
        if self.waited > 3 and self.passes_on and self.server:
            self.server.jobs["17"] = "CANCELLED"

    def read_pod(self, name):
        return self.pod

    def delete_pod(self, name):
        there = self.pod is not None
        if not self.stuck:
            self.pod = None
        return there


def test_without_slurm_a_cancellation_is_not_called_verified():
    found = cancel_pod(Cluster(), "j")
    assert (found.found, found.verified) == (True, False)
    assert "whether SLURM job 17 has ended was not seen" in str(found)
    assert "slurm_conn_id" in str(found)


def test_a_cancellation_that_slurm_confirms_is_verified():
    server = Slurmrestd()
    server.jobs["17"] = "RUNNING"
    found = cancel_pod(Cluster(server), "j")
    assert found.verified
    assert "SLURM job 17 has ended (SLURM says CANCELLED)" in str(found)
    assert server.deleted == []


def test_a_cancellation_that_interlink_lost_is_made_at_slurm_itself(caplog):
    server = Slurmrestd()
    server.jobs["17"] = "RUNNING"
    found = cancel_pod(Cluster(server, passes_on=False), "j")
    assert (found.verified, server.deleted) == (True, ["17"])
    assert "goes on although its pod was deleted" in caplog.text


def test_a_job_that_nobody_can_end_is_named():
    server = Slurmrestd()
    server.jobs["17"], server.deletion_works = "RUNNING", False
    found = cancel_pod(Cluster(server, passes_on=False), "j")
    assert not found.verified
    assert str(found) == (
        "was NOT cancelled: its pod is gone, but SLURM job 17 is still RUNNING; run scancel 17 at the site"
    )


def test_a_pod_that_stays_is_told():
    found = cancel_pod(Cluster(stuck=True), "j")
    assert (found.verified, "its pod is still there" in str(found)) == (False, True)


def test_slurm_that_cannot_be_asked_leaves_the_question_open():
    found = cancel_pod(Cluster(lambda request: httpx.Response(503)), "j")
    assert (found.verified, "was not seen" in str(found)) == (False, True)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "WHAT"])
def test_a_state_that_may_still_hold_nodes_is_not_an_end(state):
    assert not ended(state)
    assert not judge(found=True, pod_gone=True, slurm_job_id="1", slurm_state=state, asked_slurm=True).verified
