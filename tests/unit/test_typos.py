# SPDX-License-Identifier: Apache-2.0
"""A typo in a word of a closed set is refused in the DAG file, and the word that was meant is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar import (
    DCacheNewObjectTrigger,
    FastestFinish,
    InterLinkBatchOperator,
    InterLinkPodOperator,
    KubernetesJobOperator,
    NewObjects,
    Notifications,
    ObjectFilter,
    OscarBucketOperator,
    OscarDeleteServiceOperator,
    OscarExposedServiceOperator,
    OscarInvokeOperator,
    OscarJobOperator,
    OscarServiceJobsTrigger,
    OscarServiceOperator,
    PlacementBranchOperator,
    PlacementTarget,
    Rule,
    S3NewObjectSensor,
    S3NewObjectTrigger,
    placed,
)
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.words import nearest, require_word
from airflow_provider_oscar.jobs.options import RunOptions

JOB = {"task_id": "t", "command": ["x"], "output_uri": "s3://bucket/out"}
NODE = PlacementTarget(name="hpc", kind="interlink", node="n")
ASTRAY = PlacementTarget(name="x", kind="interlnk", node="n")


def new(**arguments: object) -> NewObjects:
    return NewObjects("s3://bucket/in/", **arguments)  # type: ignore[arg-type]  # as a DAG author may


TYPOS: dict[str, tuple[Callable[[], object], str]] = {
    "start": (lambda: new(start="al"), "all"),
    "empty": (lambda: new(empty="skp"), "skip"),
    "algorithm": (lambda: new(watch={"algorithm": "timestmp"}), "timestamp"),
    "notifications": (lambda: new(watch={"notifications": {"kind": "kafak"}}), "kafka"),
    "scheme": (lambda: NewObjects("dcach:///data"), "dcache"),
    "on_timeout": (lambda: new().group(key="x", complete=2, on_timeout="rn"), "run"),
    "filter": (lambda: ObjectFilter(empty="rnu"), "run"),
    "kind of notifications": (lambda: Notifications(kind="minio_listen"), "minio-listen"),
    "mode of dCache": (lambda: DCacheNewObjectTrigger(asset_name="a", path="/x", notifications="ss"), "sse"),
    "algorithm of S3": (lambda: S3NewObjectTrigger(asset_name="a", bucket="bucket", algorithm="curser"), "cursor"),
    "states": (lambda: OscarServiceJobsTrigger(asset_name="a", service="s", states=["suceeded"]), "succeeded"),
    "start of a sensor": (lambda: S3NewObjectSensor(task_id="t", bucket="bucket", start="nwo"), "now"),
    "keep_jobs": (lambda: OscarJobOperator(**JOB, service="s", keep_jobs="fail"), "failed"),
    "reuse": (lambda: OscarJobOperator(**JOB, service="s", reuse="retry"), "retries"),
    "resume_from": (lambda: OscarJobOperator(**JOB, service="s", resume_from="previous_try"), "previous-try"),
    "event_format": (lambda: OscarJobOperator(task_id="t", service="s", event_format="mino"), "minio"),
    "keep_pod": (lambda: InterLinkPodOperator(**JOB, image="i", target=NODE, keep_pod="onfailure"), "on_failure"),
    "keep_pod, batch": (lambda: InterLinkBatchOperator(**JOB, image="i", target=NODE, keep_pod="alway"), "always"),
    "resource": (lambda: KubernetesJobOperator(**JOB, image="i", container_resources={"cpus": "1"}), "cpu"),
    "resource of a target": (lambda: PlacementTarget(name="x", kind="oscar", resources={"mem": "1Gi"}), "memory"),
    "running_jobs": (
        lambda: OscarDeleteServiceOperator(task_id="t", service="s", delete_buckets=True, running_jobs="canel"),
        "cancel",
    ),
    "action": (lambda: OscarServiceOperator(task_id="t", fdl="x.yaml", action="aply"), "apply"),
    "action on a bucket": (lambda: OscarBucketOperator(task_id="t", bucket="b", action="crate"), "create"),
    "visibility": (lambda: OscarBucketOperator(task_id="t", bucket="b", visibility="restrictd"), "restricted"),
    "answer": (lambda: OscarInvokeOperator(task_id="t", service="s", payload={}, answer="jsn"), "json"),
    "answer, exposed": (lambda: OscarExposedServiceOperator(task_id="t", service="s", answer="txt"), "text"),
    "method": (lambda: OscarExposedServiceOperator(task_id="t", service="s", method="PSOT"), "POST"),
    "kind of a target": (
        lambda: PlacementBranchOperator(task_id="t", targets=[ASTRAY], policy=FastestFinish()), "interlink",
    ),
    "kind of a target, placed": (
        lambda: placed("p", targets=[ASTRAY], command=["x"], image="i", output_uri="s3://bucket/out"), "interlink",
    ),
    "source of a rule": (lambda: Rule(target="x", source="dcach"), "dcache"),
    "mode of a job": (lambda: RunOptions(mode="inlin"), "inline"),  # type: ignore[arg-type]  # the typo
    "launcher": (lambda: RunOptions(launcher="mpirn"), "mpirun"),  # type: ignore[arg-type]  # the typo
}  # fmt: skip


@pytest.mark.parametrize("argument", TYPOS)
def test_a_typo_is_refused_with_the_word_that_was_meant(argument: str) -> None:
    write, meant = TYPOS[argument]
    with pytest.raises(DefinitionError, match=rf"; did you mean '{meant}'\?"):
        write()


@pytest.mark.parametrize("quantity", ["1GiB", "2 Gi", "-1", ""])
def test_what_is_no_quantity_is_refused_in_the_dag_file(quantity: str) -> None:
    with pytest.raises(DefinitionError, match="expected a Kubernetes quantity"):
        KubernetesJobOperator(**JOB, image="i", container_resources={"memory": quantity})


def test_templates_devices_and_huge_pages_are_taken() -> None:
    resources = {"cpu": "{{ params.cpus }}", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"}
    for kind in ("oscar", "interlink"):
        assert PlacementTarget(name="x", kind=kind, node="n", resources=resources).resources == resources
    assert PlacementTarget(name="x", kind="oscar", resources={"cpu": ".5"}).resources == {"cpu": ".5"}


def test_an_object_that_is_none_is_refused_in_the_dag_file() -> None:
    with pytest.raises(DefinitionError, match="object_event is 's3//bucket/key'"):
        OscarJobOperator(**JOB, service="s", object_event="s3//bucket/key")


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_any_word_is_taken_or_refused_with_one_that_is_known(word: str, known: Iterable[str]) -> None:
    meant = nearest(word, known)
    assert not meant or any(repr(each) in meant for each in known)
    if word in known:
        require_word(word, known, "x")
    else:
        with pytest.raises(DefinitionError, match="^x is "):
            require_word(word, known, "x")
