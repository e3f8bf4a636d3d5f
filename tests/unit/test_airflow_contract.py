# SPDX-License-Identifier: Apache-2.0
"""What this provider takes from Airflow without a promise; fails here first when an upgrade moves it."""

from __future__ import annotations

import inspect
import traceback
import warnings
from datetime import timedelta

import pytest
from airflow.sdk import Asset, BaseOperatorLink, XComArg, task
from airflow.sdk.bases.decorator import determine_kwargs
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.definitions.param import DagParam
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)
from airflow.sdk.execution_time.context import TaskStateStoreAccessor
from airflow.triggers.base import BaseEventTrigger, BaseTrigger

from airflow_provider_oscar import _airflow
from airflow_provider_oscar import _airflow_tables as tables
from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    JobFailedError,
    JobSkippedError,
    LostContactError,
    OscarProviderError,
    PermanentError,
    TransientError,
)


def parameters(function):
    return set(inspect.signature(function).parameters)


def test_what_is_known_only_at_run_time_has_one_base():
    assert issubclass(XComArg, _airflow.ResolveMixin)
    assert issubclass(DagParam, _airflow.ResolveMixin)


def test_decorators_of_airflow_are_attributes_of_one_class():
    assert isinstance(task, _airflow.TaskDecoratorCollection)


def test_task_state_store_keeps_a_value_for_ever():
    assert {"key", "value", "retention"} <= parameters(TaskStateStoreAccessor.set)
    assert {"key", "default"} <= parameters(TaskStateStoreAccessor.get)
    assert timedelta.max == _airflow.NEVER_EXPIRE


def test_asset_state_store_can_be_made_for_an_asset_by_name():
    store = _airflow.AssetStateStoreAccessor(name="inbox")
    assert all(callable(getattr(store, name)) for name in ("get", "set", "aget", "aset"))


def test_arguments_of_a_decorated_function_are_picked_by_name():
    assert {"func", "args", "kwargs"} <= parameters(determine_kwargs)


def test_undefined_connection_has_an_error_of_its_own():
    assert issubclass(AirflowNotFoundException, AirflowException)
    assert not issubclass(AirflowFailException, AirflowNotFoundException)


def test_an_event_of_an_asset_can_be_registered():
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetDagRunQueue, AssetEvent, AssetModel, association_table
    from airflow.models.connection import Connection

    assert {"asset", "extra", "partition_key", "session"} <= parameters(asset_manager.register_asset_change)
    assert all(hasattr(AssetEvent, name) for name in ("id", "asset_id", "timestamp", "partition_key", "extra"))
    assert hasattr(AssetModel, "active")
    assert {"event_id", "dag_run_id"} <= set(association_table.c.keys())
    assert {"asset_id", "target_dag_id", "created_at"} <= set(AssetDagRunQueue.__table__.c.keys())
    assert {"conn_id"} <= parameters(Connection.get_connection_from_secrets)


def test_runs_can_be_made_beside_the_scheduler():
    from airflow.models.asset import DagScheduleAssetReference
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.utils.sqlalchemy import with_row_locks
    from sqlalchemy.orm import configure_mappers

    configure_mappers()
    wanted = {"run_id", "logical_date", "data_interval", "run_after", "conf", "run_type", "triggered_by", "state"}
    assert wanted <= parameters(SerializedDAG.create_dagrun)
    assert {"partition_key", "partition_date", "run_id", "state", "clear_number"} <= set(DagRun.__table__.c.keys())
    assert hasattr(DagRun, "consumed_asset_events")
    assert {"timetable_type", "is_paused", "is_stale"} <= set(DagModel.__table__.c.keys())
    assert {"dag_id", "asset_id", "created_at"} <= set(DagScheduleAssetReference.__table__.c.keys())
    assert {"asset_id", "key", "value", "updated_at"} <= set(AssetStateStoreModel.__table__.c.keys())
    assert {"dag_id", "session"} <= parameters(SerializedDagModel.get)
    assert {"query", "session", "skip_locked"} <= parameters(with_row_locks)


def test_jobs_tell_listeners_of_their_start_before_their_kind_is_set():
    import airflow.jobs.job
    from airflow.jobs.job import Job
    from airflow.jobs.triggerer_job_runner import TriggererJobRunner

    assert "on_starting(component=self)" in inspect.getsource(airflow.jobs.job)
    assert hasattr(Job, "job_type")
    assert TriggererJobRunner.job_type == "TriggererJob"


def test_a_condition_that_nothing_fulfils_can_be_evaluated_and_stored():
    from airflow.assets.evaluation import AssetEvaluator
    from airflow.sdk import AssetAll, AssetAny
    from airflow.serialization.decoders import decode_asset_like
    from airflow.serialization.definitions.assets import SerializedAssetUniqueKey
    from airflow.serialization.encoders import encode_asset_like, ensure_serialized_asset

    incoming = Asset("n", uri="s3://bucket/k")
    condition = decode_asset_like(encode_asset_like(ensure_serialized_asset(AssetAll(incoming, AssetAny()))))
    statuses = {SerializedAssetUniqueKey(name="n", uri="s3://bucket/k"): True}
    assert AssetEvaluator(None).run(condition, statuses) is False
    assert [key.name for key, _ in condition.iter_assets()] == ["n"]


def test_trigger_is_told_when_a_user_kills_its_task():
    assert inspect.iscoroutinefunction(BaseTrigger.on_kill)
    assert issubclass(BaseEventTrigger, BaseTrigger)


def test_deferral_takes_what_we_give():
    assert {"trigger", "method_name", "kwargs", "timeout"} <= parameters(BaseOperator.defer)


def test_link_is_asked_for_with_the_operator():
    assert {"operator", "ti_key"} <= parameters(BaseOperatorLink.get_link)


def test_decorated_function_gets_its_arguments_and_the_names_it_asks_for():
    def function(a, b, *, run_id=None):
        return a, b, run_id

    called = _airflow.call_with_context(function, [1], {"b": 2}, {"run_id": "r", "ds": "d"})
    assert called == (1, 2, "r")


#: What Airflow gets of each; what it gets as it is it tries again.
ERRORS = {
    DefinitionError: AirflowFailException,
    PermanentError: AirflowFailException,
    BadInputError: AirflowFailException,
    JobFailedError: AirflowFailException,
    JobSkippedError: AirflowSkipException,
    TransientError: TransientError,
    LostContactError: LostContactError,
    AccessError: AccessError,
}


@pytest.mark.parametrize(("kind", "becomes"), ERRORS.items(), ids=[kind.__name__ for kind in ERRORS])
def test_error_fails_the_task_skips_it_or_is_tried_again(kind, becomes):
    with pytest.raises(becomes, match="why") as raised, _airflow.airflow_errors():
        raise kind("why")
    assert raised.value.__suppress_context__


def test_the_sentence_that_matters_stands_first_and_whole_and_frames_are_for_debug(caplog):
    sentence = (
        "connection 'oscar_default': OSCAR refused the service 'words' " + "because of this and that " * 9 + "(remedy)"
    )

    def hook_call():
        try:
            raise OSError("the socket was closed")
        except OSError as error:
            raise TransientError(sentence) from error

    with caplog.at_level("DEBUG"), pytest.raises(TransientError) as raised, _airflow.airflow_errors():
        hook_call()
    first, cause, frames = caplog.records
    assert (first.levelname, " ".join(first.getMessage().split())) == ("ERROR", sentence)
    assert max(map(len, first.getMessage().split("\n"))) <= _airflow.LINE
    assert (cause.levelname, cause.getMessage()) == ("INFO", "Caused by OSError: the socket was closed")
    assert frames.levelname == "DEBUG"
    assert frames.exc_info
    shown = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert "hook_call" not in shown
    assert raised.value.__cause__ is None


def test_undefined_connection_is_not_tried_again():
    with pytest.raises(AirflowFailException), _airflow.airflow_errors():
        raise AirflowNotFoundException("the conn_id isn't defined")


def test_every_kind_of_error_is_covered():
    def all_of(kind):
        return {kind}.union(*(all_of(each) for each in kind.__subclasses__()))

    ours = {each for each in all_of(OscarProviderError) if each.__module__ == "airflow_provider_oscar.core.errors"}
    assert ours == {OscarProviderError, *ERRORS}


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError), _airflow.airflow_errors():
        raise ZeroDivisionError


def test_the_schedules_of_airflow_itself_and_their_queue_have_these_columns():
    from airflow.models import asset
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun

    columns = {
        asset.DagScheduleAssetReference: "dag_id asset_id created_at",
        asset.DagScheduleAssetNameReference: "dag_id name created_at",
        asset.DagScheduleAssetUriReference: "dag_id uri created_at",
        asset.TaskOutletAssetReference: "dag_id asset_id",
        asset.AssetDagRunQueue: "target_dag_id asset_id created_at",
        DagModel: "dag_id is_paused is_stale timetable_type",
        DagRun: "state clear_number partition_key consumed_asset_events",
    }
    missing = [
        (model.__name__, name) for model, names in columns.items() for name in names.split() if not hasattr(model, name)
    ]
    assert missing == []


def test_the_page_and_the_commands_find_the_columns_of_the_tables_they_read():
    columns = {
        tables.TaskInstance: "dag_id run_id task_id map_index operator custom_operator_name state start_date end_date",
        tables.XComModel: "dag_id run_id task_id map_index key value",
        tables.RenderedTaskInstanceFields: "dag_id run_id task_id map_index rendered_fields",
        tables.DagRun: "dag_id run_id run_after",
        tables.AssetModel: "id name uri",
        tables.AssetWatcherModel: "asset_id trigger_id name",
        tables.Trigger: "id triggerer_id",
        tables.AssetEvent: "asset_id timestamp extra partition_key",
        tables.AssetStateStoreModel: "asset_id key value updated_at",
        tables.DagScheduleAssetReference: "asset_id dag_id",
        tables.Connection: "conn_id conn_type host description",
    }
    missing = [
        (model.__name__, name) for model, names in columns.items() for name in names.split() if not hasattr(model, name)
    ]
    assert missing == []


def test_the_page_finds_the_guards_of_the_api_server():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow_provider_oscar import _airflow_server as server
    for guard in (server.requires_access_dag, server.requires_access_asset, server.requires_access_connection):
        assert "method" in parameters(guard)
