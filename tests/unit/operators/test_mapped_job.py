# SPDX-License-Identifier: Apache-2.0
"""Where a job task that is mapped by itself runs, as far as the DAG file says."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, BaseOperator, TaskGroup, XComArg

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.slurm import SlurmOptions
from airflow_provider_oscar.decorators.oscar import oscar_task
from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
from airflow_provider_oscar.operators.mapped_job import is_mapped_job, mapped_backend
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from airflow_provider_oscar.placement.targets import PlacementTarget
from tests.support.fakes import OUTPUT
from tests.support.folder_jobs import FolderJobOperator

HPC = PlacementTarget(name="hpc", kind="interlink", node="leonardo", slurm=SlurmOptions(partition="gpu"))
WHOLE = {"service": "svc", "oscar_conn_id": "cloud"}


@pytest.fixture(autouse=True)
def dag():
    with DAG("dag", schedule=None) as made:
        yield made


def found():
    """What another task lists when it runs."""
    return BaseOperator(task_id="list").output


def job(operator=OscarJobOperator, **partial):
    return operator.partial(**{"task_id": "job", "command": ["x"], "output_uri": OUTPUT, **partial})


def backend_of(task):
    task = task.operator if isinstance(task, XComArg) else task
    assert is_mapped_job(task)
    return mapped_backend(task)


def work(value):
    return value


@pytest.mark.parametrize(
    ("make", "conn_id"),
    [
        (lambda: job(service="svc").expand(environment=[{}]), "oscar_default"),
        (lambda: job(**WHOLE).expand(object_event=found()), "cloud"),
        (lambda: job(service="svc").expand_kwargs([{"environment": {}}, {"timeout": 9}]), "oscar_default"),
        (lambda: job(**WHOLE).expand_kwargs(found()), "cloud"),
        (lambda: oscar_task(work, **WHOLE, output_uri=OUTPUT).expand(value=found()), "cloud"),
        (lambda: oscar_task(work, **WHOLE, output_uri=OUTPUT).expand_kwargs(found()), "cloud"),
    ],
    ids=["a default", "partial", "rows", "rows of another task", "a function", "a function and rows"],
)
def test_it_is_where_the_dag_file_says(make, conn_id):
    backend = backend_of(make())
    assert (backend.conn_id, backend.service) == (conn_id, "svc")


@pytest.mark.parametrize(
    "make",
    [
        lambda: job().expand(service=["a", "b"]),
        lambda: job(service="svc").expand(oscar_conn_id=found()),
        lambda: job().expand_kwargs([{"service": "a"}, {"service": "b"}]),
        lambda: job(service="svc").expand_kwargs([{"environment": {}}, {"oscar_conn_id": "b"}]),
        lambda: job(service="svc").expand_kwargs(found()),
        lambda: job(service="svc").expand_kwargs([found()]),
        lambda: job(service="{{ params.service }}").expand(environment=[{}]),
        lambda: job(service=found()).expand(environment=[{}]),
        lambda: job(InterLinkPodOperator, image="i").expand(target=[HPC]),
        lambda: job(FolderJobOperator).expand(environment=[{}]),
    ],
    ids=[
        "service mapped",
        "connection mapped",
        "service in rows",
        "connection in a row",
        "rows of another task",
        "a row of another task",
        "a template",
        "another task's result",
        "target mapped",
        "an operator that does not say",
    ],
)
def test_where_it_is_known_only_when_it_runs(make):
    assert backend_of(make()) is None


def test_default_arguments_of_group_and_dag_count(dag):
    dag.default_args = {"oscar_conn_id": "of-the-dag", "service": "svc"}
    assert backend_of(job().expand(environment=[{}])).conn_id == "of-the-dag"
    with TaskGroup("group", default_args={"oscar_conn_id": "of-the-group"}):
        assert backend_of(job().expand(environment=[{}])).conn_id == "of-the-group"
        assert backend_of(job(task_id="other", oscar_conn_id="own").expand(environment=[{}])).conn_id == "own"


def test_a_pod_is_looked_for_on_its_node_and_in_its_queue():
    task = job(InterLinkPodOperator, image="i", target=HPC, namespace="jobs")
    backend = backend_of(task.expand(environment=[{}]))
    assert (*backend.address().values(), backend.node, backend.partition) == (
        "interlink_default",
        "jobs",
        "leonardo",
        "gpu",
    )
    backend = backend_of(job(KubernetesJobOperator, task_id="pod", image="i").expand(environment=[{}]))
    assert backend.conn_id == "kubernetes_default"


def test_what_the_operator_would_refuse_is_refused():
    with pytest.raises(DefinitionError, match="target of task 'job' is None"):
        backend_of(job(InterLinkPodOperator, image="i", target=None).expand(environment=[{}]))


def test_other_tasks_are_none():
    assert not is_mapped_job(BaseOperator.partial(task_id="other").expand(doc=["a"]))
    assert not is_mapped_job(OscarJobOperator(task_id="plain", service="svc", command=["x"], output_uri=OUTPUT))
