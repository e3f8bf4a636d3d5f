# SPDX-License-Identifier: Apache-2.0
"""A Python function as the command of a job: the call out, the value or the traceback back.

What runs it there is ``supervisor/call.py``. Nothing here knows Airflow.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib
import json
import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from types import ModuleType
from typing import Any, Literal, TypeAlias, get_args

from airflow_provider_oscar.core.errors import DefinitionError, LostContactError, quoted
from airflow_provider_oscar.core.logs import sanitize_line
from airflow_provider_oscar.core.shapes import parse_json
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.jobs.environment import ARCHIVE, Requirements

Serializer: TypeAlias = Literal["json", "pickle", "cloudpickle"]
#: Largest value that is returned to the task, and so to XCom.
VALUE_LIMIT = 64 * 1024 * 1024
RETURN_VALUE = {
    "json": "return_value.json",
    "pickle": "return_value.pickle",
    "cloudpickle": "return_value.pickle",
}
EXCEPTION = "exception.json"
EXCEPTION_LIMIT = 1024 * 1024

# The digest is part of the command, so that another function or argument is another request.
_START = (
    "import os,runpy,sys;p=os.path.join(os.environ['JOB_FILES_DIR'],'call.py');sys.argv[0]=p;"
    "runpy.run_path(p,run_name='__main__')"
)


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call of one function.

    :param name: of the function.
    :param source: its definition, without decorators.
    :param args: positional arguments.
    :param kwargs: named arguments.
    :param task_id: for tracebacks.
    :param serializer: ``json``; or ``pickle`` or ``cloudpickle``, for arguments and values that JSON cannot hold. Who
        can write results on the compute side can then run code on the worker.
    :param python_version: of the image, such as ``3.9``, if known: source it cannot read is refused here, and
        ``cloudpickle`` for another Python than the worker's.
    :param requirements: packages that come along; see :mod:`.environment`.
    :param future_annotations: the source is of a file with ``from __future__ import annotations``.
    :raises DefinitionError: if an argument cannot be sent, or the source is not for that Python.
    """

    name: str
    source: str
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    task_id: str = ""
    serializer: Serializer = "json"
    python_version: str = ""
    requirements: Requirements | None = None
    future_annotations: bool = False

    def __post_init__(self) -> None:
        require_word(self.serializer, get_args(Serializer), f"serializer of task {self.task_id!r}")
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if self.serializer == "cloudpickle" and self.python_version != here:
            raise DefinitionError(
                f"task {self.task_id!r} asks for cloudpickle, which needs the same Python on both sides: the worker "
                f"has {here}, the image {quoted(self.python_version) if self.python_version else 'an unknown one'}; "
                f'say python_version="{here}" if it is that, or use serializer="pickle"'
            )
        version = re.fullmatch(r"3\.([0-9]{1,2})", self.python_version) if self.python_version else None
        if self.python_version and (version is None or int(version[1]) < 8):
            raise DefinitionError(
                f"python_version of task {self.task_id!r} is {quoted(self.python_version)}; expected 3.8 or later"
            )
        try:
            ast.parse(self.source, feature_version=(3, int(version[1])) if version else None)
        except SyntaxError as error:
            raise DefinitionError(
                f"function {self.name!r} of task {self.task_id!r} is not Python {self.python_version or '3'}, line "
                f"{error.lineno}: {error.msg}; write it for the Python of the image, or use another image"
            ) from error

    def document(self) -> bytes:
        """Return the call as it travels."""
        call: dict[str, object] = {
            "version": 1,
            "name": self.name,
            "task_id": self.task_id,
            "source": self.source,
            "serializer": self.serializer,
        }
        if self.future_annotations:
            call["future_annotations"] = True
        if self.requirements is not None:
            call["environment"] = {
                "file": ARCHIVE,
                "python": self.requirements.python_version,
                "digest": self.requirements.digest,
            }
        if self.serializer != "json":
            try:
                # Protocol 4 is what Python 3.8 reads as well.
                pickler = pickle if self.serializer == "pickle" else cloudpickle_module()
                raw = bytes(pickler.dumps(self._arguments(pickler.dumps), protocol=4))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise DefinitionError(
                    f"an argument of function {self.name!r} of task {self.task_id!r} cannot be pickled: {quoted(error)}"
                ) from error
            call["pickled"] = base64.b64encode(raw).decode("ascii")
        else:
            named = [(f"number {number + 1}", value) for number, value in enumerate(self.args)]
            for name, value in [*named, *((repr(name), value) for name, value in self.kwargs.items())]:
                self._check_json(name, value)
            call |= {"args": list(self.args), "kwargs": dict(self.kwargs)}
        return json.dumps(call, sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")

    def _arguments(self, dumps: Callable[[object], bytes]) -> object:
        given = (list(self.args), dict(self.kwargs))
        try:
            return _in_order(given, dumps)
        except RecursionError:  # something holds itself, which a pickle can say
            return given

    def _check_json(self, name: str, value: object) -> None:
        try:
            json.dumps(value, allow_nan=False, default=_plain)
            refuse_odd_keys(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise DefinitionError(
                f"argument {name} of function {self.name!r} of task {self.task_id!r} is a {type(value).__name__} that "
                f'JSON cannot hold ({quoted(error)}); pass text, numbers, lists, dictionaries, or serializer="pickle"'
            ) from error

    def files(self) -> dict[str, bytes]:
        """Return the files the job brings along."""
        runner = resources.files("airflow_provider_oscar.supervisor").joinpath("call.py").read_bytes()
        return {"call.py": runner, "call.json": self.document()}

    def command(self, python: str = "python3") -> list[str]:
        """Return the job's command.

        :param python: interpreter in the image.
        """
        return [python, "-c", _START, hashlib.sha256(self.document()).hexdigest()]


class _OrderedSet:
    """A set on its way into a pickle. Its own order is another in each process, and a retry that asks for another call
    than the try before, by even one byte, does not get its job."""

    def __init__(self, elements: set[object] | frozenset[object], dumps: Callable[[object], bytes]) -> None:
        self._kind = type(elements)
        self._elements = sorted((_in_order(each, dumps) for each in elements), key=dumps)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[list[object]]]:
        return self._kind, (self._elements,)


def _in_order(value: Any, dumps: Callable[[object], bytes]) -> Any:
    """Return plain containers with each set in them such that the same contents make the same pickle."""
    if type(value) in (set, frozenset):
        return _OrderedSet(value, dumps)
    if type(value) is dict:
        found: Any = {key: _in_order(each, dumps) for key, each in value.items()}
        return value if all(found[key] is each for key, each in value.items()) else found
    if type(value) in (list, tuple):
        found = type(value)(_in_order(each, dumps) for each in value)
        return value if all(one is each for one, each in zip(found, value, strict=True)) else found
    return value


def refuse_odd_keys(value: object) -> None:
    """Refuse a dictionary with keys of which JSON would silently make text.

    :raises TypeError: naming one.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} would become text")
            refuse_odd_keys(each)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            refuse_odd_keys(each)


def cloudpickle_module() -> ModuleType:
    """Return the module cloudpickle.

    :raises DefinitionError: if it is not installed.
    """
    try:
        module: ModuleType = importlib.import_module("cloudpickle")
    except ImportError as error:
        raise DefinitionError(
            'serializer="cloudpickle" needs the package of that name on the worker: install '
            "airflow-provider-oscar[cloudpickle]"
        ) from error
    return module


def _plain(value: object) -> object:
    """Return Airflow's mappings and sequences (params, XComs) and numbers of NumPy's as JSON's."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    item = getattr(value, "item", None)
    if getattr(value, "shape", None) == () and callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_value(data: bytes | None, serializer: Serializer, *, display_name: str) -> object:
    """Return what the function returned.

    :param data: the output of the name :data:`RETURN_VALUE` has for the serializer, already proven to be the job's.
    :param serializer: as it was asked for.
    :param display_name: task or job, for messages.
    :raises LostContactError: if there is no value although the job succeeded.
    """
    if data is None:
        raise LostContactError(f"{display_name}: the job succeeded, but its function's value is not among the outputs")
    try:
        return parse_json(data)["value"] if serializer == "json" else pickle.loads(data)
    except (ValueError, KeyError, TypeError, pickle.UnpicklingError, EOFError, ImportError, AttributeError) as error:
        raise LostContactError(
            f"{display_name}: what its function returned cannot be read ({quoted(error)})"
        ) from error


def read_exception(data: bytes | None) -> str:
    """Return the traceback of what the function raised, fit for a message; empty if there is none."""
    if data is None:
        return ""
    try:
        found = parse_json(data)
        lines = str(found["traceback"]).rstrip().split("\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return "\n".join(sanitize_line(line) for line in lines)
