# SPDX-License-Identifier: Apache-2.0
"""Many objects in one pod: each has an identity of its own, and the next try asks for what is left alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.batches import OffloadBatch
from airflow_provider_oscar.core.errors import DefinitionError, TransientError
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.phase import JobPhase
from airflow_provider_oscar.jobs.manifest import Failure, Manifest
from airflow_provider_oscar.operators import job_inputs
from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import EVENT, OUTPUT, Store, about, context, manifest, signed

TARGET = PlacementTarget(name="hpc", task_id="infer", kind="interlink", node="leonardo")
EVENTS = [{**EVENT, "key": f"{number}.h5", "etag": f"e{number}"} for number in range(3)]


def operator(**arguments):
    wanted = {"task_id": "infer", "image": "docker://python:3.12", "command": ["true"], "output_uri": OUTPUT}
    return InterLinkBatchOperator(**{**wanted, "target": TARGET, "objects": EVENTS, **arguments})


def deferred(task, seen):
    with pytest.raises(TaskDeferred) as raised:
        task.execute(seen)
    return raised.value


def asked(supervisor):
    return [work.event.key for work in supervisor.built[-1]["attachments"].objects]


def end(supervisor, cluster, codes, *, permanent=True, submission=-1):
    """Let the job end: each object has its manifest, the batch that which lists them."""
    built = supervisor.built[submission]
    name = built["submission_id"]
    rows = []
    for work, code in zip(built["attachments"].objects, codes, strict=False):
        found = about(manifest(work.submission_id, code), work.event)
        supervisor.manifests[work.submission_id] = signed(found, work.binding.signing_key)
        rows.append({"submission_id": work.submission_id, "output_uri": "", "exit_code": code, "error": None})
    failed = [code for code in codes if code]
    error = Failure("run", f"{len(failed)} failed", "objects-failed", permanent) if failed else None
    whole = manifest(name, failed[0] if failed else 0, error=error)
    found = Manifest.from_dict({**whole.to_dict(), "objects": rows})
    supervisor.manifests[name] = signed(found, built["binding"].signing_key)
    cluster.put(name, JobPhase.FAILED if failed else JobPhase.SUCCEEDED)


def resumed(pause, seen, **arguments):
    event = {"status": "ended", "phase": "failed", "ended_at": datetime.now(UTC).isoformat()}
    return operator(**arguments).execute_complete(seen, event=event, **json.loads(json.dumps(pause.kwargs)))


def test_an_object_that_is_named_twice_is_processed_once(cluster, supervisor):
    deferred(operator(objects=[*EVENTS, EVENTS[0]]), context())
    assert asked(supervisor) == ["0.h5", "1.h5", "2.h5"]


def test_batches_may_be_made_of_what_a_sensor_returned_each_object_once():
    (batch,) = OffloadBatch().split([EVENTS[1], EVENTS[0], ObjectEvent.from_dict(EVENTS[1])])
    assert [each["key"] for each in batch] == ["1.h5", "0.h5"]


def test_all_objects_go_into_one_pod_with_identities_of_their_own(cluster, supervisor):
    deferred(operator(), context())
    assert len(cluster.created) == 1
    works = supervisor.built[0]["attachments"].objects
    assert [work.event.key for work in works] == ["0.h5", "1.h5", "2.h5"]
    assert len({work.submission_id for work in works} | {supervisor.built[0]["submission_id"]}) == 4
    assert len({work.binding.signing_key for work in works} | {supervisor.built[0]["binding"].signing_key}) == 4


def test_the_next_try_runs_what_failed_alone(cluster, supervisor):
    store = Store()
    pause = deferred(operator(), context(store))
    end(supervisor, cluster, [0, 7, 0], permanent=False)
    seen = context(store)
    with pytest.raises(TransientError, match="the next try runs those that failed alone"):
        resumed(pause, seen)
    assert [row["exit_code"] for row in seen["ti"].xcoms["objects"]] == [0, 7, 0]
    pause = deferred(operator(), context(store))
    assert asked(supervisor) == ["1.h5"]
    end(supervisor, cluster, [0])
    seen = context(store)
    assert resumed(pause, seen)["exit_code"] == 0
    assert [row["exit_code"] for row in seen["ti"].xcoms["objects"]] == [0, 0, 0]


def test_objects_that_can_only_fail_again_fail_the_task_for_good(cluster, supervisor):
    pause = deferred(operator(), context())
    end(supervisor, cluster, [0, 3, 0])
    with pytest.raises(AirflowFailException, match="objects|failed"):
        resumed(pause, context())


def test_another_batch_takes_what_a_former_one_did(cluster, supervisor):
    pause = deferred(operator(), context(partition_key="p-1"))
    end(supervisor, cluster, [0, 0, 0])
    resumed(pause, context(partition_key="p-1"))
    more = [*EVENTS, {**EVENT, "key": "3.h5", "etag": "e3"}]
    deferred(operator(objects=more), context(partition_key="p-2"))
    assert asked(supervisor) == ["3.h5"]


def test_another_command_takes_nothing(cluster, supervisor):
    pause = deferred(operator(), context(partition_key="p-1"))
    end(supervisor, cluster, [0, 0, 0])
    resumed(pause, context(partition_key="p-1"))
    deferred(operator(command=["false"]), context(partition_key="p-2"))
    assert asked(supervisor) == ["0.h5", "1.h5", "2.h5"]


def test_a_manifest_that_is_not_signed_for_the_object_counts_as_none(cluster, supervisor):
    deferred(operator(), context(partition_key="p-1"))
    for work in supervisor.built[0]["attachments"].objects:
        supervisor.manifests[work.submission_id] = manifest(work.submission_id)
    deferred(operator(), context(partition_key="p-2"))
    assert asked(supervisor) == ["0.h5", "1.h5", "2.h5"]


@pytest.mark.parametrize("count", [0, 251])
def test_too_few_and_too_many_are_refused(cluster, supervisor, count):
    events = [{**EVENT, "key": str(number)} for number in range(count)]
    with pytest.raises(AirflowFailException, match="takes 1 to 250"):
        operator(objects=events).execute(context())


def test_one_object_and_a_batch_of_them_are_two_things():
    with pytest.raises(DefinitionError, match="takes no object_event, which is for a job of one object; give objects"):
        operator(object_event=EVENT)


@pytest.mark.parametrize("wrong", [{"max_objects": 0}, {"max_objects": 251}, {"max_bytes": 0}, {"parallel": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(DefinitionError):
        OffloadBatch(**wrong)


@given(st.lists(st.integers(0, 100), max_size=60), st.integers(1, 9), st.none() | st.integers(1, 200))
def test_batches_hold_every_object_once_in_order_and_within_their_bounds(sizes, most, room):
    events = [ObjectEvent.from_dict({**EVENT, "key": str(number), "size": size}) for number, size in enumerate(sizes)]
    batches = OffloadBatch(max_objects=most, max_bytes=room).split(events)
    assert [each["key"] for batch in batches for each in batch] == [event.key for event in events]
    for batch in batches:
        assert 0 < len(batch) <= most
        assert room is None or sum(each["size"] for each in batch[:-1]) < room


def saved(supervisor, cluster, monkeypatch, files):
    """Let a batch of three fail in its first and third object, which left ``files``; return what the next try asks."""
    seen = context(Store())
    deferred(operator(resume_from="previous-try"), seen)
    built = supervisor.built[-1]
    end(supervisor, cluster, [75, 0, 75], permanent=False)
    for number in (0, 2):
        name = built["attachments"].objects[number].submission_id
        found = supervisor.manifests[name].to_dict()
        kept = [{"key": f"checkpoint/{key}", "size": 1, "sha256": ""} for key in files]
        key = built["attachments"].objects[number].binding.signing_key
        supervisor.manifests[name] = signed(Manifest.from_dict({**found, "checkpoint": kept, "signature": ""}), key)

    def head(uris, *, conn_id=""):
        if not uris:
            return ()
        (uri,) = uris
        return (ObjectEvent.from_dict({**EVENT, "container": "out", "key": uri.removeprefix("s3://out/")}),)

    monkeypatch.setattr(job_inputs, "find_objects", head)
    cluster.pods.clear()
    deferred(operator(resume_from="previous-try"), seen)
    return supervisor.built[-1]["attachments"].objects


def test_each_object_is_given_what_it_saved_itself_and_no_other(cluster, supervisor, monkeypatch):
    works = saved(supervisor, cluster, monkeypatch, ["a", "b"])
    assert [work.event.key for work in works] == ["0.h5", "2.h5"]
    for work in works:
        keys = [each.key for each in work.resume_from]
        assert keys == [f"results/{work.submission_id}/checkpoint/{name}" for name in ("a", "b")]


def test_objects_whose_saved_files_are_too_many_for_one_job_begin_anew(cluster, supervisor, monkeypatch, caplog):
    works = saved(supervisor, cluster, monkeypatch, [str(number) for number in range(300)])
    assert [len(work.resume_from) for work in works] == [300, 0]
