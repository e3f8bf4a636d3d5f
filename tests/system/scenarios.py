# SPDX-License-Identifier: Apache-2.0
"""What all scenarios share: a task's run, waiting, and the messages a failed task leaves."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_provider_oscar.core.errors import quoted
from tests.support.fakes import Store, context

T = TypeVar("T")
COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
SLEEP = ["python3", "-c", "import time; print('asleep', flush=True); time.sleep(600)"]
HOSTILE_KEY = "a b/ü'$(touch x);\n..%2e.txt"
NASTY = "a \"b\" 'c' $HOME `id` \\ $(id) \n\t; & | < > * ? # ~ {x,y} ü€ %41 end \n"
_numbers = itertools.count()


def make_context(request: pytest.FixtureRequest, store: Store | None = None) -> Any:
    """A context no other run of this or another test has."""
    key = f"{os.getpid()}-{next(_numbers)}-{request.node.name}"
    return {**context(partition_key=key, task_id="run"), **({"task_state_store": store} if store is not None else {})}


def until(found: Callable[[], T | None], seconds: float, what: str) -> T:
    """Wait for something true, and return it."""
    end = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds:.0f} s until {what}; it never did"
        time.sleep(0.5)


def deferred(task: Any, state: Any) -> TaskDeferred:
    """Run a task until it hands over to its trigger."""
    with pytest.raises(TaskDeferred) as raised:
        task.execute(state)
    return raised.value


def raised_failure(task: Any, state: Any) -> AirflowFailException:
    """Run a task that must fail for good, and return why."""
    with pytest.raises(AirflowFailException) as raised:
        task.execute(state)
    return raised.value


def says(error: BaseException, *parts: str) -> None:
    """Assert that a message has all parts."""
    missing = [part for part in parts if part not in str(error)]
    assert not missing, f"{missing} not in {quoted(str(error), 2000)}"
