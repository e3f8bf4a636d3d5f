# SPDX-License-Identifier: Apache-2.0
"""The program as such: its size, its Python, and what it makes of names and redirects."""

from __future__ import annotations

import ast
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.supervisor import bundle
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import safe_name
from airflow_provider_oscar.supervisor.transport import redirected
from tests.support.supervised import MODULES

# Names the program must not use: (module, attribute) that Python 3.8 does not have.
NEWER_THAN_3_8 = {
    ("asyncio", "to_thread"), ("functools", "cache"), ("hashlib", "file_digest"), ("itertools", "pairwise"),
    ("itertools", "batched"), ("math", "lcm"), ("os", "pidfd_open"), ("os", "waitstatus_to_exitcode"),
    ("shutil", "copyfileobj_fd"), ("signal", "pidfd_send_signal"), ("random", "randbytes"), ("datetime", "UTC"),
    ("contextlib", "chdir"), ("contextlib", "aclosing"), ("typing", "Annotated"), ("typing", "Self"),
    ("typing", "TypeAlias"), ("typing", "ParamSpec"), ("typing", "assert_never"), ("typing", "Never"),
}  # fmt: skip
NEWER_METHODS = {"removeprefix", "removesuffix", "readlink", "is_relative_to", "hardlink_to", "with_stem", "bit_count"}
NEWER_MODULES = {"zoneinfo", "graphlib", "tomllib"}


#: Of these, call.py travels beside the function it calls.
SOURCES = sorted(path for path in MODULES.glob("*.py") if path.name != "bundle.py")
JOINED = [path for path in SOURCES if path.name not in ("__init__.py", "call.py")]


def test_program_fits_one_environment_variable():
    assert len("OSCAR_SUPERVISOR=") + len(bundle.encoded_program()) < 128 * 1024


def test_program_is_joined_from_all_modules_and_the_same_each_time():
    assert {f"{name}.py" for name in bundle.MODULES} == {path.name for path in JOINED}
    first = bundle.program()
    bundle.program.cache_clear()
    assert bundle.program() == first
    assert all(path.read_text() in ast.literal_eval(sources_of(first)).values() for path in JOINED)


def sources_of(text):
    tree = ast.parse(text)
    return next(ast.get_source_segment(text, node.value) for node in tree.body if isinstance(node, ast.Assign))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_module_is_python_3_8_with_its_standard_library_only(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(bundle.PACKAGE):
            imported.add((node.module or "").split(".")[0])
            assert not {(node.module, alias.name) for alias in node.names} & NEWER_THAN_3_8
        elif isinstance(node, ast.Attribute):
            assert node.attr not in NEWER_METHODS, node.lineno
            if isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in NEWER_THAN_3_8, node.lineno
    assert imported - {"__future__"} <= set(sys.stdlib_module_names) - NEWER_MODULES


@pytest.mark.parametrize("old", ["https://a/x", "https://a:443/x"])
def test_https_is_not_left_by_a_redirect(old):
    with pytest.raises(StageError, match="from https to http"):
        redirected(old, {"Authorization": "s"}, "http://a/x")


@pytest.mark.parametrize(
    ("target", "kept"),
    [("/y", True), ("https://a:443/y", True), ("https://a:444/y", False), ("https://b/y", False), ("//b/y", False)],
)
def test_headers_stay_within_their_origin(target, kept):
    _, headers = redirected("https://a/x", {"Authorization": "s"}, target)
    assert bool(headers) is kept


@settings(max_examples=4 * settings.default.max_examples)
@given(name=st.text())
def test_safe_name_is_always_one_plain_path_segment(name):
    found = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", found)
