# SPDX-License-Identifier: Apache-2.0
"""Submitting, adopting, believing and cancelling jobs of an OSCAR service."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import NEVER_EXPIRE
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, TaskDeferred

from airflow_provider_oscar.core.errors import (
    DefinitionError,
    LostContactError,
    TransientError,
)
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.manifest import Failure, Manifest
from airflow_provider_oscar.operators.job import JobOperator
from airflow_provider_oscar.operators.job_state import STATE_KEY
from airflow_provider_oscar.triggers.jobs import JobTrigger
from tests.support.fakes import EVENT, OUTPUT, Store, context, manifest
from tests.support.operators import oscar_operator

pytestmark = pytest.mark.usefixtures("supervisor")


def deferred(task, seen):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(seen)
    return raised.value


def ended(phase="succeeded", *, seconds_ago=0.0, **fields):
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"status": "ended", "phase": phase, "ended_at": at.isoformat(), **fields}


def resumed(task, seen, pause, event):
    """What Airflow does after the trigger's event: a new process, a new operator."""
    return type(task).execute_complete(task, seen, event=event, **json.loads(json.dumps(pause.kwargs)))


def test_job_is_submitted_stored_and_waited_for_in_the_triggerer(oscar, supervisor):
    store = Store()
    pause = deferred(oscar_operator(), context(store))
    (name,) = oscar.jobs
    assert name.startswith("svc-")
    assert store[STATE_KEY]["job_id"] == name
    assert set(store.retentions) == {NEVER_EXPIRE}
    assert isinstance(pause.trigger, JobTrigger)
    assert (pause.trigger.backend, pause.trigger.job_id) == ("oscar", name)
    assert pause.method_name == "execute_complete"
    assert pause.timeout > timedelta(seconds=600), "Airflow's own timeout would leave the job running"
    assert oscar.specifications("svc")[name]["submission_id"] == name
    assert supervisor.built[0]["event"].key == "a b.h5"
    assert supervisor.built[0]["lifetime"] >= timedelta(hours=24)


@pytest.mark.parametrize(
    ("uri", "given", "used"),
    [
        ("dcache://site/results", {}, "site"),
        ("dcache:///results", {}, "dcache_default"),
        ("dcache://site/results", {"output_conn_id": "mine"}, "mine"),
        ("s3://results", {}, "oscar_s3_default"),
    ],
)
def test_the_output_is_reached_by_the_connection_that_its_uri_names(oscar, supervisor, uri, given, used):
    pause = deferred(oscar_operator(output_uri=uri, **given), context())
    assert supervisor.built[0]["output_conn_id"] == used
    assert pause.trigger.result["conn_id"] == used


def test_id_is_stored_before_the_job_is_submitted(oscar):
    store = Store()
    oscar.refuse["POST", "/job"] = 503
    with pytest.raises(TransientError):
        oscar_operator().execute(context(store))
    assert store[STATE_KEY]["submission_id"].startswith("svc-")


def test_retry_adopts_the_job_that_runs(oscar, supervisor):
    store = Store()
    deferred(oscar_operator(), context(store))
    (name,) = oscar.jobs
    oscar.jobs[name] = "Running"
    pause = deferred(oscar_operator(), context(store))
    assert (list(oscar.jobs), oscar.posts(), len(supervisor.built)) == ([name], 1, 1)
    assert pause.kwargs["job"]["submitted_at"], "the age of the adopted job is remembered"


def test_job_is_adopted_although_the_first_try_died_before_it_stored_anything(oscar):
    deferred(oscar_operator(), context(Store()))
    deferred(oscar_operator(), context(Store()))
    assert oscar.posts() == 1


def test_second_run_for_the_same_object_adopts_and_one_for_another_does_not(oscar):
    for key in ("p-1", "p-1", "p-2"):
        deferred(oscar_operator(), context(partition_key=key))
    assert oscar.posts() == 2


def test_work_that_succeeded_before_is_not_run_again(oscar, supervisor):
    deferred(oscar_operator(), context())
    (name,) = oscar.jobs
    supervisor.manifests[name] = manifest(name)
    seen = context()
    assert oscar_operator().execute(seen)["submission_id"] == name
    assert oscar.posts() == 1
    assert seen["ti"].xcoms["job_id"] == name


def test_job_that_failed_in_an_earlier_try_is_removed_and_submitted_again(oscar, supervisor):
    store = Store()
    deferred(oscar_operator(), context(store))
    (name,) = oscar.jobs
    oscar.jobs[name] = "Failed"
    supervisor.manifests[name] = manifest(name, 74, error=Failure("stage-in", "503"))
    deferred(oscar_operator(), context(store))
    assert oscar.posts() == 2
    assert ("DELETE", f"/system/logs/svc/{name}") in oscar.calls


def test_manifest_of_an_earlier_try_does_not_condemn_the_new_job(oscar, supervisor):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    supervisor.manifests[name] = manifest(name, 1, submitted=datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(TaskDeferred) as raised:
        resumed(task, seen, pause, ended())
    assert raised.value.trigger.pending_event["phase"] == "succeeded"


def test_success_is_what_the_manifest_proves(oscar, supervisor):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    supervisor.manifests[name] = manifest(name)
    assert resumed(task, seen, pause, ended())["exit_code"] == 0
    assert seen["ti"].xcoms["slurm_job_id"] == "17"


def test_marker_line_proves_success_when_the_store_is_away(oscar, supervisor):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    oscar.logs[name] = "done\n" + supervisor.marker(manifest(name))
    supervisor.fault = TransientError("store away")
    assert resumed(task, seen, pause, ended())["submission_id"] == name


def test_succeeded_without_manifest_is_waited_for_and_then_lost(oscar):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(TaskDeferred):
        resumed(task, seen, pause, ended(seconds_ago=10))
    with pytest.raises(LostContactError, match="no manifest came") as raised:
        resumed(task, seen, pause, ended(seconds_ago=600))
    assert "OSCAR service 'svc' (connection 'oscar_default')" in str(raised.value)


def test_bad_input_is_not_tried_again_and_the_message_says_what_and_where(oscar, supervisor):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    (name,) = oscar.jobs
    oscar.logs[name] = "opening\nOSError: truncated file\n"
    supervisor.manifests[name] = manifest(name, 66, error=Failure("stage-in", "etag changed"))
    with pytest.raises(AirflowFailException) as raised:
        resumed(task, seen, pause, ended("failed"))
    assert raised.value.__suppress_context__
    for part in ("'stage-in'", "etag changed", "exit code 66", "'s3://in/a%20b.h5'", "truncated file", "oscar_default"):
        assert part in str(raised.value)


def test_node_failure_is_tried_again(oscar):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(TransientError):
        resumed(task, seen, pause, ended("failed", seconds_ago=600))


def test_timeout_cancels_the_job_and_fails(oscar):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(AirflowFailException, match="did not end within 600 seconds and was cancelled"):
        resumed(task, seen, pause, {"status": "timeout"})
    assert oscar.jobs == {}


def test_a_place_that_could_not_be_looked_at_leaves_the_job_for_the_next_try(oscar):
    task, seen = oscar_operator(), context()
    pause = deferred(task, seen)
    with pytest.raises(TransientError, match="cannot be observed and was left running: 401"):
        resumed(task, seen, pause, {"status": "error", "message": "401"})
    assert len(oscar.jobs) == 1


def test_killed_task_cancels_its_job(oscar):
    task = oscar_operator()
    deferred(task, context())
    task.on_kill()
    task.on_kill()
    assert oscar.jobs == {}


def test_a_retry_that_is_killed_before_it_takes_over_cancels_the_job_of_the_try_before(oscar, supervisor, monkeypatch):
    store = Store()
    deferred(oscar_operator(), context(store))
    retry = oscar_operator()

    def killed(*_, **__):
        retry.on_kill()
        raise KeyboardInterrupt

    monkeypatch.setattr(supervisor, "read_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        retry.execute(context(store))
    assert oscar.jobs == {}


def test_task_killed_before_it_submitted_cancels_nothing(oscar):
    oscar_operator().on_kill()
    assert oscar.calls == []


@pytest.mark.usefixtures("no_delays")
def test_waiting_on_the_worker_is_the_same_wait(oscar, supervisor):
    task = oscar_operator(deferrable=False, poll_interval=0.001)

    def finish():
        (name,) = oscar.jobs
        oscar.jobs[name] = "Succeeded"
        supervisor.manifests[name] = manifest(name)

    oscar.after_list = [lambda: None] * 4 + [finish]
    assert task.execute(context())["exit_code"] == 0


@pytest.mark.usefixtures("no_delays")
def test_a_store_that_is_away_while_its_result_is_asked_for_ends_no_wait_on_the_worker(oscar, supervisor, monkeypatch):
    task, away, read = oscar_operator(deferrable=False, poll_interval=0.001), [], supervisor.read_manifest

    def read_manifest(*where, **checks):
        if away:
            raise away.pop()
        return read(*where, **checks)

    def finish():
        (name,) = oscar.jobs
        oscar.jobs[name] = "Succeeded"
        supervisor.manifests[name] = manifest(name)
        away.extend([TransientError("the endpoint is not reachable")] * 3)

    monkeypatch.setattr(supervisor, "read_manifest", read_manifest)
    oscar.after_list = [finish]
    assert task.execute(context())["exit_code"] == 0
    assert away == []


@pytest.mark.usefixtures("no_delays")
def test_waiting_on_the_worker_gives_up_on_a_lost_job(oscar, monkeypatch):
    monkeypatch.setattr(JobOperator, "manifest_grace", timedelta(seconds=0.02))
    oscar.after_list = [lambda: None] * 3 + [oscar.jobs.clear]
    with pytest.raises(LostContactError):
        oscar_operator(deferrable=False, poll_interval=0.01).execute(context())


def test_payload_is_sent_as_an_event_or_as_a_file(oscar):
    deferred(oscar_operator(command=None, object_event=None, payload={"a": 1}), context())
    deferred(oscar_operator(command=None, object_event=None, payload="text"), context(partition_key="p-2"))
    assert sorted(oscar.bodies.values()) == sorted([b'{"a":1}', base64.b64encode(b"text")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": "python3 x.py"}, "expected a list or None, such as"),
        ({"command": None}, "exactly one of command, payload and event_format"),
        ({"payload": "x"}, "exactly one of command, payload and event_format"),
        ({"output_uri": ""}, "no output_uri"),
        ({"timeout": 0}, "timeout of task 'infer' is 0"),
        ({"poll_interval": -1}, "poll_interval of task 'infer' is -1"),
    ],
)
def test_mistakes_are_found_in_the_dag_file(arguments, message):
    with pytest.raises(DefinitionError, match=message):
        oscar_operator(**arguments)


@pytest.mark.parametrize(
    "form",
    [
        json.dumps(EVENT),
        str(EVENT),
        {"object": EVENT},
        {"from_trigger": True, "payload": EVENT},
        json.dumps({"object": EVENT}),
    ],
    ids=["JSON", "rendered dictionary", "extra of ingest", "extra of a watcher", "extra as JSON"],
)
def test_object_event_may_arrive_in_any_of_its_forms(oscar, supervisor, form):
    deferred(oscar_operator(object_event=form), context())
    assert supervisor.built[0]["event"].key == "a b.h5"


@pytest.mark.parametrize("form", ["", "None", None])
def test_task_without_object_has_no_input(oscar, supervisor, form):
    deferred(oscar_operator(object_event=form), context())
    assert supervisor.built[0]["event"] is None


@pytest.mark.parametrize("form", ["{{ broken }}", 7, {"key": "x"}, "{'key': "])
def test_anything_else_is_no_object_event(oscar, form):
    with pytest.raises(AirflowFailException, match="ObjectEvent"):
        oscar_operator(object_event=form).execute(context())


def test_missing_connection_fails_at_once_by_name(monkeypatch):
    def get_connection(conn_id):
        raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")

    monkeypatch.setattr(OscarHook, "get_connection", staticmethod(get_connection))
    with pytest.raises(AirflowFailException, match="no_such_conn"):
        oscar_operator(oscar_conn_id="no_such_conn").execute(context())


def test_links_lead_to_log_and_output(oscar):
    task, seen = oscar_operator(), context()
    deferred(task, seen)
    (name,) = oscar.jobs
    key = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
    urls = {link.name: link.get_link(task, ti_key=key) for link in task.operator_extra_links}
    assert urls["OSCAR job log"] == f"https://oscar.test/system/logs/svc/{name}"
    assert urls["Output"].endswith("/oscar/ui/?dag_id=d&run_id=r&task_id=t&map_index=-1#results")
    assert task.link_urls["Output"] == f"{OUTPUT}/{name}/"


def test_links_are_empty_before_the_task_ran():
    task = oscar_operator()
    assert {link.get_link(task, ti_key=None) for link in task.operator_extra_links} == {""}


def test_resumed_task_finds_its_job_in_the_state_store(oscar, supervisor):
    """``dag.test()`` resumes with the event alone."""
    task, seen = oscar_operator(), context()
    deferred(task, seen)
    (name,) = oscar.jobs
    supervisor.manifests[name] = manifest(name)
    assert oscar_operator().execute_complete(seen, event=ended())["submission_id"] == name


def test_a_cleared_task_runs_again_and_an_automatic_retry_does_not(oscar, supervisor):
    store = Store()
    first = context(store)
    first["ti"].max_tries = 2
    deferred(oscar_operator(), first)
    (name,) = oscar.jobs
    oscar.jobs[name] = "Succeeded"
    supervisor.manifests[name] = manifest(name)
    again = context(store)
    again["ti"].max_tries = 2
    assert oscar_operator().execute(again)["submission_id"] == name
    cleared = context(store)
    cleared["ti"].max_tries = 4
    assert oscar_operator(reuse="always").execute(cleared)["submission_id"] == name
    cleared["ti"].max_tries = 5
    deferred(oscar_operator(), cleared)
    assert oscar.posts() == 2
    keys = [each["binding"].signing_key for each in supervisor.built]
    assert keys[0] != keys[1], "the result of the first does not prove the second"


@pytest.mark.parametrize(
    "change", [{"command": ["other"]}, {"environment": {"A": "b"}}, {"output_uri": "s3://out/other"}], ids=str
)
def test_a_changed_request_does_not_get_the_former_result(oscar, supervisor, change):
    store = Store()
    deferred(oscar_operator(), context(store))
    (name,) = oscar.jobs
    oscar.jobs[name] = "Succeeded"
    supervisor.manifests[name] = supervisor.signed(manifest(name))
    deferred(oscar_operator(**change), context(store))
    assert oscar.posts() == 2


def test_with_reuse_never_each_try_runs_anew(oscar, supervisor):
    store = Store()
    for _ in range(2):
        deferred(oscar_operator(reuse="never"), context(store))
    assert oscar.posts() == 2


def test_two_deployments_do_not_share_jobs(oscar, monkeypatch):
    deferred(oscar_operator(), context())
    monkeypatch.setenv("AIRFLOW__OSCAR__DEPLOYMENT_ID", "other")
    deferred(oscar_operator(), context())
    assert len(oscar.jobs) == 2


def test_a_manifest_put_at_the_computable_place_beforehand_proves_nothing(oscar, supervisor):
    deferred(oscar_operator(), context())
    (name,) = oscar.jobs
    oscar.jobs.clear()
    supervisor.built.clear()
    supervisor.manifests[name] = manifest(name)
    deferred(oscar_operator(), context())
    assert oscar.posts() == 2


def test_the_key_is_nowhere_but_in_the_specification(oscar, supervisor):
    store = Store()
    pause = deferred(oscar_operator(), context(store))
    key = supervisor.built[0]["binding"].signing_key
    assert len(key) == 64
    assert key not in json.dumps([store, pause.kwargs, pause.trigger.serialize()])


def test_a_timeout_that_outlives_every_url_is_told_before_submission(oscar, supervisor):
    deferred(oscar_operator(timeout=timedelta(days=8)), context())
    assert supervisor.built[0]["lifetime"] == timedelta(days=7)
    assert supervisor.built[0]["binding"].outlived
    deferred(oscar_operator(timeout=timedelta(days=6)), context(partition_key="other"))
    assert supervisor.built[1]["lifetime"] >= timedelta(days=6, minutes=10)
    assert not supervisor.built[1]["binding"].outlived


def test_nothing_of_the_specification_can_be_read_in_the_request(oscar, supervisor):
    deferred(oscar_operator(environment={"LICENCE": "a-secret-licence"}), context())
    ((name, body),) = oscar.bodies.items()
    assert oscar.specifications("svc")[name]["environment"] == {"LICENCE": "a-secret-licence"}
    assert b"LICENCE" not in base64.b64decode(body)


def test_a_service_without_a_key_gets_no_job_unless_the_connection_allows_it(oscar, supervisor, monkeypatch, capsys):
    oscar.has_key = False
    with pytest.raises(AirflowFailException, match="'svc' has no key.*apply it again"):
        oscar_operator().execute(context())
    assert oscar.bodies == {}
    monkeypatch.setattr(OscarHook, "extra", {"allow_plain_specifications": True})
    deferred(oscar_operator(), context())
    (body,) = oscar.bodies.values()
    assert json.loads(base64.b64decode(body))["submission_id"]
    assert "is readable for whoever may read the pods" in capsys.readouterr().out


def test_outputs_that_are_not_there_are_a_warning_and_no_failure(oscar, supervisor, capsys):
    def finish():
        (name,) = oscar.jobs
        oscar.jobs[name] = "Succeeded"
        whole = {**manifest(name).to_dict(), "outputs": [{"key": "a.txt", "size": 1, "sha256": ""}]}
        supervisor.manifests[name] = Manifest.from_dict(whole)

    supervisor.gone = ["a.txt"]
    oscar.after_list = [finish]
    assert oscar_operator(deferrable=False, poll_interval=0.001).execute(context())["exit_code"] == 0
    assert (
        "are not as its manifest says, so somebody replaced or removed them: 'a.txt' is not there"
        in capsys.readouterr().out
    )
