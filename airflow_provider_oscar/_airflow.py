# SPDX-License-Identifier: Apache-2.0
"""The one place that imports what Airflow does not promise to keep, and that raises Airflow's exceptions.

``tests/unit/test_airflow_contract.py`` holds each name against the installed Airflow, so that an
upgrade that moves one fails there and not in a running task.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import NEVER_EXPIRE, AssetStateStoreAccessor

from airflow_provider_oscar.model.errors import DefinitionError, PermanentError

__all__ = ["NEVER_EXPIRE", "AssetStateStoreAccessor", "airflow_errors"]


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn what must not be repeated into ``AirflowFailException``, and let the rest be retried.

    A :class:`PermanentError` or :class:`DefinitionError` fails the task at once whatever ``retries``
    says; :class:`TransientError` and :class:`LostContactError` pass, so that Airflow retries them.
    """
    try:
        yield
    except (DefinitionError, PermanentError) as error:
        raise AirflowFailException(str(error)) from error
