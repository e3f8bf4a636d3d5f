# SPDX-License-Identifier: Apache-2.0
"""Waiting for a virtual node."""

from __future__ import annotations

import time

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.core.nodes import VirtualNode
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.sensors.interlink import InterLinkNodeSensor
from tests.support.fakes import context

GPU = {"nvidia.com/gpu": 4}


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_INTERLINK_DEFAULT", '{"conn_type": "interlink", "extra": {}}')
    found: list[VirtualNode] = []
    monkeypatch.setattr(InterLinkHook, "nodes", lambda self: found)
    return found


def sensor(**arguments):
    return InterLinkNodeSensor(**{"task_id": "wait", "timeout": 60, "poke_interval": 0.001} | arguments)


def test_a_node_that_is_ready_needs_no_deferral(nodes):
    nodes.append(VirtualNode(name="hpc", accelerators=GPU))
    assert sensor(node="hpc", accelerators={"nvidia.com/gpu": 4}).execute(context())["name"] == "hpc"


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (VirtualNode(name="hpc", unready_reason="the node is cordoned"), "cordoned"),
        (VirtualNode(name="hpc", accelerators={"nvidia.com/gpu": 1}), "too few of nvidia.com/gpu"),
        (VirtualNode(name="other", accelerators=GPU), "no virtual node 'hpc'"),
    ],
    ids=["not ready", "too small", "absent"],
)
async def test_what_is_missing_is_waited_for_and_named_in_the_end(nodes, node, why):
    nodes.append(node)
    task = sensor(node="hpc", accelerators=GPU)
    with pytest.raises(TaskDeferred) as raised:
        task.execute(context())
    trigger = raised.value.trigger
    assert trigger.deadline > time.time()
    trigger.deadline = 0.0
    (event,) = [each async for each in trigger.run()]
    with pytest.raises(TransientError, match=why):
        task.execute_complete(context(), event=event.payload)
    assert task.poke(context()).is_done is False


async def test_a_node_that_becomes_ready_ends_the_wait(nodes):
    trigger = pytest.raises(TaskDeferred, sensor().execute, context()).value.trigger
    nodes.append(VirtualNode(name="hpc"))
    (event,) = [each async for each in trigger.run()]
    assert sensor().execute_complete(context(), event=event.payload)["name"] == "hpc"
