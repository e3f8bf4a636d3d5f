# SPDX-License-Identifier: Apache-2.0
"""What ``@task.interlink``, ``@task.oscar`` and ``@task.kubernetes_job`` share: the function runs in the job.

A mix-in over the job operators. The function's source and its arguments go out with the job, its value comes back
through the output's store, proven by the manifest; what it raises ends up, traceback included, in the task's error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from platform import machine
from types import FunctionType
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from airflow_provider_oscar._airflow import DecoratedOperator, airflow_errors, context_arguments
from airflow_provider_oscar.core.errors import DefinitionError, JobFailedError, JobSkippedError, OscarProviderError
from airflow_provider_oscar.jobs.environment import (
    ARCHIVE,
    Requirements,
    make_archive,
    requirement_lines,
    version_of_image,
)
from airflow_provider_oscar.jobs.function import (
    EXCEPTION,
    EXCEPTION_LIMIT,
    RETURN_VALUE,
    VALUE_LIMIT,
    FunctionCall,
    Serializer,
    cloudpickle_module,
    read_exception,
    read_value,
)
from airflow_provider_oscar.jobs.function_source import (
    check_names,
    has_future_annotations,
    plain_function,
    without_decorator,
)
from airflow_provider_oscar.jobs.manifest import Manifest
from airflow_provider_oscar.jobs.options import Attachments
from airflow_provider_oscar.jobs.signing import is_authentic
from airflow_provider_oscar.operators.job import JobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.jobs.status import JsonObject


#: What a function with ``**kwargs`` gets of the context: what is text, as with ``@task.virtualenv``.
CONTEXT_TEXTS = (
    *("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
    *("run_id", "task_instance_key_str", "partition_key"),
)


class FunctionJobOperator(DecoratedOperator, JobOperator[object]):
    """Runs a Python function as a job; to be combined with the operator of a kind of job.

    :param python_callable: the function. Its source is sent, so it imports what it needs itself and uses nothing of
        the DAG file around it.
    :param op_args: its positional arguments.
    :param op_kwargs: its named arguments; names of the context (``ds``, ``params``, …) that it asks for are added.
    :param serializer: ``json`` for arguments and value, or ``pickle`` or ``cloudpickle``. Whoever can write results on
        the compute side can run code on the worker if it is one of the latter two.
    :param python: interpreter in the image, 3.8 or later.
    :param python_version: of that interpreter, such as ``3.9``; by default what the name of an image ``python:3.9…``
        says. Source it cannot read is refused in the DAG file.
    :param requirements: packages the function imports, as a list of lines of a requirements file. The worker installs
        them once for each list, as wheels for ``python_version``, and they are staged beside the job, which needs no
        internet; pin them to get the same ones another day. They come before those of the image.
    :param machine: of the compute node, as ``uname -m`` says it, for ``requirements``.
    """

    custom_operator_name: str

    def __init__(
        self,
        *,
        python_callable: Callable[..., object],
        op_args: Collection[object] | None = None,
        op_kwargs: Mapping[str, object] | None = None,
        serializer: Serializer = "json",
        python: str = "python3",
        python_version: str = "",
        requirements: Sequence[str] | str = (),
        machine: str = "x86_64",
        **kwargs: Any,
    ) -> None:
        plain_function(python_callable, f"task {kwargs.get('task_id') or ''!r}")
        if isinstance(outputs := kwargs.get("outputs"), Mapping):
            # The value comes back from where the manifest is, whatever the patterns say.
            kwargs["outputs"] = {RETURN_VALUE[serializer]: "", EXCEPTION: "", **outputs}
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, command=("python3",), **kwargs
        )
        self.serializer = serializer
        self.python = python
        self.python_version = self._version(python_version)
        lines = requirement_lines(requirements)
        if serializer == "cloudpickle" and self.python_version:
            lines += (f"cloudpickle=={cloudpickle_module().__version__}",)
        self.requirements = Requirements(lines, self.python_version, machine) if lines else None
        self._call: FunctionCall | None = None
        self._make_call((), {})  # what the source is not fit for is said in the DAG file
        check_names(self._function(), self._source(), f"task {self.task_id!r}")

    def _function(self) -> FunctionType:
        return plain_function(self.python_callable, f"task {self.task_id!r}")

    def _source(self) -> str:
        try:
            source = str(self.get_python_source())  # type: ignore[no-untyped-call]
        except (OSError, TypeError) as error:
            raise DefinitionError(
                f"task {self.task_id!r}: the source of function {self.python_callable.__name__!r} cannot be read "
                f"({error}); define it in the DAG file or in a module of it"
            ) from error
        name = self.custom_operator_name.removeprefix("@")
        return without_decorator(source, (name, f"{name.removeprefix('task.')}_task"))

    def _make_call(self, args: Sequence[object], kwargs: Mapping[str, object]) -> FunctionCall:
        return FunctionCall(
            name=self.python_callable.__name__,
            source=self._source(),
            future_annotations=has_future_annotations(self._function()),
            args=args,
            kwargs=kwargs,
            task_id=self.task_id,
            serializer=self.serializer,
            python_version=self.python_version,
            requirements=self.requirements,
        )

    def _version(self, given: str) -> str:
        """Return the Python version of the image; what was given and what its name says must not differ."""
        named = version_of_image(str(getattr(self, "image", "")))
        if given and named and given != named:
            raise DefinitionError(
                f"task {self.task_id!r} says python_version={given!r}, and its image is of Python {named}"
            )
        return given or named

    def build_options(self) -> dict[str, object]:
        """Return the function, its arguments and what calls it, as files of the job."""
        assert self._call is not None
        options = super().build_options()
        given = options["attachments"] or Attachments()
        stored = {}
        if self.requirements is not None:
            stored[ARCHIVE] = self.builder.environment(self.requirements, self.output_conn_id, self.output_uri)
        return {**options, "attachments": replace(given, files=self._call.files(), stored=stored)}

    def execute(self, context: Context) -> Any:
        """Run the function in a job and return its value."""
        with airflow_errors():
            args, kwargs = context_arguments(self.python_callable, self.op_args, self.op_kwargs, context)
            self._call = self._make_call(args, self._sendable(kwargs))
            self.command = self._call.command(self.python)
        if conf.getboolean("oscar", "run_functions_locally", fallback=False):
            with airflow_errors():
                return self._run_here(self._call)
        return self._function_value(context, lambda: JobOperator.execute(self, context))

    def execute_complete(
        self, context: Context, event: JsonObject | None = None, job: Mapping[str, object] | None = None
    ) -> Any:
        """Go on after the trigger's event; return the function's value."""
        return self._function_value(context, lambda: JobOperator.execute_complete(self, context, event, job))

    def _sendable(self, kwargs: Mapping[str, object]) -> dict[str, object]:
        """Leave out of what a function with ``**kwargs`` gets what of the context belongs to this process."""
        asked = {*signature(self.python_callable).parameters, *self.op_kwargs}
        return {name: value for name, value in kwargs.items() if name in asked or name in CONTEXT_TEXTS}

    def _function_value(self, context: Context, run: Callable[[], dict[str, Any]]) -> object:
        """Return the function's value, or raise its error with the traceback of where it ran."""
        try:
            found = run()
        except AirflowSkipException:
            raise
        except (AirflowException, OscarProviderError) as error:
            trace = self._traceback()
            if not trace:
                raise
            raise type(error)(f"{error}\n\nThe function raised, where it ran:\n{trace}") from error
        with airflow_errors():
            manifest = Manifest.from_dict(found)
            if found.get("outputs_omitted"):  # XCom takes a summary; the value may be among the rest
                manifest = self._genuine_manifest() or manifest
            context["ti"].xcom_push(key="manifest", value=found)
            data = self.results.read_output(self.output_conn_id, manifest, RETURN_VALUE[self.serializer], VALUE_LIMIT)
            return read_value(data, self.serializer, display_name=f"task {self.task_id!r}")

    def _genuine_manifest(self) -> Manifest | None:
        job = self._job or self.asked
        manifest = None if job is None else self.read_manifest(job)
        if job is None or manifest is None or not is_authentic(job, manifest, self.verifies):
            return None
        return manifest

    def _traceback(self) -> str:
        if self._job is None:
            return ""
        try:
            manifest = self._genuine_manifest()
            if manifest is None or manifest.succeeded:
                return ""
            return read_exception(self.results.read_output(self.output_conn_id, manifest, EXCEPTION, EXCEPTION_LIMIT))
        except OscarProviderError as error:
            self.log.warning("The traceback of the function cannot be read: %s", error)
            return ""

    def _run_here(self, call: FunctionCall) -> object:
        """Run the function on the worker in a process of its own, as it runs in a job, but with this Python."""
        self.log.info("The function runs on the worker: [oscar] run_functions_locally is set")
        with tempfile.TemporaryDirectory(prefix="oscar-function-") as folder:
            places = {name: Path(folder, name) for name in ("files", "output", "input")}
            for place in places.values():
                place.mkdir()
            if call.requirements is not None:  # for this Python, whatever the image has
                here = f"{sys.version_info[0]}.{sys.version_info[1]}"
                call = replace(call, requirements=replace(call.requirements, python_version=here, machine=machine()))
                assert call.requirements is not None
                make_archive(call.requirements, Path(folder)).rename(places["files"] / ARCHIVE)
            for name, content in call.files().items():
                (places["files"] / name).write_bytes(content)
            environment = {
                **os.environ,
                **{name: str(value) for name, value in self.environment.items()},
                "JOB_FILES_DIR": str(places["files"]),
                "TMP_OUTPUT_DIR": str(places["output"]),
                "TMP_INPUT_DIR": str(places["input"]),
                "PYTHONUNBUFFERED": "1",
            }
            with subprocess.Popen(
                call.command(sys.executable),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    self.log.info("%s", line.rstrip("\n"))
            raised = places["output"] / EXCEPTION
            if process.returncode in self.skip_on_exit_code:
                raise JobSkippedError(
                    f"the function of task {self.task_id!r} ended with exit code {process.returncode}, which skips its "
                    "task (skip_on_exit_code)"
                )
            if process.returncode != 0:
                trace = read_exception(raised.read_bytes() if raised.exists() else None)
                raise JobFailedError(
                    f"the function of task {self.task_id!r} ended with exit code {process.returncode}\n\n{trace}"
                )
            value = places["output"] / RETURN_VALUE[self.serializer]
            data = value.read_bytes() if value.exists() else None
            return read_value(data, self.serializer, display_name=f"task {self.task_id!r}")
