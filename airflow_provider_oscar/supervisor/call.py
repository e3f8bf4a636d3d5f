# SPDX-License-Identifier: Apache-2.0
"""Calls one Python function where the job runs: ``call.py DIGEST``; the call is the file ``call.json`` beside it.

Python 3.8 and its standard library. The function comes as source, so that its Python need not be the one of Airflow.
What it returns goes to ``return_value.json`` among the job's outputs (or ``.pickle``, if that was asked for), what it
raises to ``exception.json``, with its traceback. Of several processes of one job, the first alone writes.
"""

from __future__ import annotations
import __future__

import base64
import hashlib
import importlib
import json
import linecache
import logging
import os
import pickle
import shutil
import site
import sys
import tarfile
import tempfile
import traceback
import types
from typing import Any

TRACEBACK_LIMIT = 32_000
#: Ranks of a process, as launchers say them.
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


def load_call(folder: str, digest: str) -> dict[str, Any]:
    """Read the call.

    :raises ValueError: if it is another one than the job was made for.
    """
    with open(os.path.join(folder, "call.json"), "rb") as file:
        raw = file.read()
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ValueError("call.json is not the call this job was made for")
    return dict(json.loads(raw.decode("utf-8")))


def enter_environment(folder: str, wanted: dict[str, str]) -> None:
    """Put the packages that came along before those of the image, for this process and those it starts.

    :raises RuntimeError: if they are for another Python.
    """
    here = "{}.{}".format(*sys.version_info[:2])
    if here != wanted["python"]:
        raise RuntimeError(
            f"the requirements were installed for Python {wanted['python']}, and the image has {here}; "
            f'say python_version="{here}"'
        )
    place = os.path.join(folder, "environment-" + wanted["digest"])
    if not os.path.isdir(place):
        # Processes of one job may share the folder: each unpacks for itself, the first to be ready wins.
        own = tempfile.mkdtemp(prefix="environment-", dir=folder)
        with tarfile.open(os.path.join(folder, wanted["file"])) as archive:
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(own, **safely)
        try:
            os.rename(own, place)
        except OSError:
            shutil.rmtree(own, ignore_errors=True)
    sys.path.insert(0, place)
    site.addsitedir(place)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))


def load_function(call: dict[str, Any]) -> Any:
    """Return the function that the source defines; its lines can be shown in tracebacks."""
    name, filename = call["name"], "<function {} of task {}>".format(call["name"], call["task_id"])
    source = call["source"]
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    module = types.ModuleType("__airflow_function__")
    # Dataclasses and pickles look their module up.
    sys.modules[module.__name__] = module
    flags = __future__.annotations.compiler_flag if call.get("future_annotations") else 0
    # This file's own future statements are not the function's.
    exec(compile(source, filename, "exec", flags, dont_inherit=True), module.__dict__)
    return getattr(module, name)


def called(function: Any, args: list[object], kwargs: dict[str, object]) -> object:
    """Call it, and run what it returns to its end if it is an asynchronous function."""
    value = function(*args, **kwargs)
    if hasattr(value, "__await__"):
        import asyncio

        async def awaited() -> object:
            return await value

        return asyncio.run(awaited())
    return value


def plain_number(value: Any) -> object:
    """Return a number of NumPy's, or a tensor without dimensions, as one of Python's.

    :raises TypeError: for anything else.
    """
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def refuse_odd_texts(value: object) -> None:
    """Refuse keys of which JSON would silently make text, and text that the database of an Airflow cannot hold.

    :raises TypeError: naming one.
    """
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= each <= "\udfff" for each in value)):
        raise TypeError(f"{value[:80]!r} has a NUL or half a character in it, which databases do not take")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} would become text")
            refuse_odd_texts(key)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        refuse_odd_texts(each)


def arguments(call: dict[str, Any]) -> tuple[list[object], dict[str, object]]:
    """Return the positional and the named arguments."""
    if call["serializer"] != "json":
        args, kwargs = pickle.loads(base64.b64decode(call["pickled"]))
        return list(args), dict(kwargs)
    return list(call["args"]), dict(call["kwargs"])


def write(name: str, data: bytes) -> None:
    """Write an output of the job, if this is the first of its processes."""
    if any(os.environ.get(rank, "0") != "0" for rank in RANKS):
        return
    with open(os.path.join(os.environ["TMP_OUTPUT_DIR"], name), "wb") as file:
        file.write(data)


def store_value(value: object, serializer: str) -> None:
    """Write what was returned.

    :raises TypeError: if it cannot be written in the way that was asked for.
    """
    if serializer != "json":
        pickler = pickle if serializer == "pickle" else importlib.import_module("cloudpickle")
        try:
            data = pickler.dumps(value, protocol=4)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise TypeError(
                f"the function returned a {type(value).__name__} that cannot be pickled ({error}); return plain data, "
                "or write a file to TMP_OUTPUT_DIR"
            ) from None
        write("return_value.pickle", data)
        return
    try:
        text = json.dumps({"value": value}, allow_nan=False, default=plain_number)
        refuse_odd_texts(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the function returned a {type(value).__name__} that JSON cannot hold ({error}); return numbers, text, "
            'lists and dictionaries, write a file to TMP_OUTPUT_DIR, or ask for serializer="pickle"'
        ) from None
    write("return_value.json", text.encode("ascii"))


def store_error(error: BaseException) -> None:
    """Write what was raised, its traceback without our own frames."""
    shown = traceback.TracebackException(type(error), error, error.__traceback__)
    while shown.stack and shown.stack[0].filename == __file__:
        shown.stack.pop(0)
    text = "".join(shown.format())
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
    message = "".join(shown.format_exception_only()).strip()
    found = {"type": type(error).__name__, "message": message[-2000:], "traceback": text[-TRACEBACK_LIMIT:]}
    write("exception.json", json.dumps(found).encode("ascii"))


def main(folder: str, digest: str) -> int:
    """Make the call and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] {%(name)s} %(levelname)s - %(message)s")
    try:
        call = load_call(folder, digest)
        if call.get("environment"):
            enter_environment(folder, call["environment"])
        args, kwargs = arguments(call)
        value = called(load_function(call), args, kwargs)
        store_value(value, call["serializer"])
    except SystemExit as ended:
        if ended.code in (None, 0):
            store_value(None, "json")
        raise
    except BaseException as error:  # noqa: BLE001 (whatever it is, the task is told)
        store_error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.path.dirname(os.path.abspath(__file__)), sys.argv[1]))
