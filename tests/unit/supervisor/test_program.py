# SPDX-License-Identifier: Apache-2.0
"""The program as such: its size, its Python, and specifications it must not obey."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.supervisor import bundle
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import safe_name
from airflow_provider_oscar.supervisor.transport import redirected
from tests.support.supervised import MODULES, command_line, job, oldest_python

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


def test_traceback_of_the_joined_program_shows_the_line(tmp_path):
    text = tmp_path / "program.py"
    text.write_text(bundle.program().replace("    sys.exit(main())", "    main(3)"))
    done = subprocess.run([oldest_python(), "-I", "-S", str(text)], capture_output=True, text=True)
    assert "main.py" in done.stderr
    assert "given = parser.parse_args(arguments)" in done.stderr


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


def test_program_compiles_on_the_oldest_interpreter():
    check = "import sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')"
    paths = [str(path) for path in SOURCES]
    assert subprocess.run([oldest_python(), "-I", "-S", "-W", "error", "-c", check, *paths]).returncode == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "2.0"}, "reads version 1.x, the job has '2.0', which is newer"),
        ({"version": None}, "newer or unknown"),
        ({"command": []}, "a list of at least one string"),
        ({"command": "ls"}, "a list of at least one string"),
        ({"output": {"uri": "x://", "kind": "ftp", "url": "https://h/"}}, "cannot stage out to the kind 'ftp'"),
        ({"output": None}, "TypeError"),
        ({"timeout": "soon"}, "is not a number"),
        ({"input": {"uri": "s3://b/k", "name": "k", "url": "https://h/a b"}}, "not an absolute, percent-encoded"),
        ({"input": {"uri": "s3://b/k", "name": "k", "url": "file:///etc/passwd"}}, "not an absolute, percent-encoded"),
        (
            {"input": {"uri": "s3://b/k", "name": "k", "url": "https://h/", "headers": {"A": "b\r\nC: d"}}},
            "characters that cannot be there",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_specification_is_refused_by_name(store, supervise, change, said):
    run = supervise({**job(store, ["true"]), **change})
    assert run.code == 78
    assert said in run.message
    assert store.requests == []


def test_newer_minor_version_is_read(store, supervise):
    assert supervise({**job(store, ["true"]), "version": "1.7", "new": 1}).code == 0


def test_the_manifest_tells_how_the_job_came_to_its_target(store, supervise):
    attempt = {"target": "hpc-gpu", "outcome": "failed", "why": "the node died"}
    placed = {"policy": "Fallback", "reasons": ["first of its chain"], "attempts": [attempt]}
    run = supervise({**job(store, ["true"]), "placed": placed})
    assert run.code == 0
    assert run.manifest.to_dict()["placed"] == placed


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_what_is_not_json_is_refused(supervise, raw):
    assert supervise(raw).code == 78


def test_missing_file_is_refused_by_name(tmp_path):
    command = command_line(tmp_path, tmp_path / "none.json")
    done = subprocess.run(command, capture_output=True, text=True, env={})
    assert done.returncode == 78
    assert "none.json' cannot be read: No such file" in done.stdout + done.stderr


def test_mounts_of_a_process_container_are_found_below_its_sandbox(store, supervise, tmp_path):
    sandbox = tmp_path / "sandbox"
    (sandbox / "volume").mkdir(parents=True)
    spec = job(store, ["/bin/sh", "-c", 'echo "$TMP_OUTPUT_DIR"'])
    path = tmp_path / "job.json"
    inner = sandbox / str(path).lstrip("/")
    inner.parent.mkdir(parents=True)
    inner.write_text(json.dumps({**spec, "placement": "inner"}))
    run = supervise(spec, CONTAINER_SANDBOX_MOUNT_POINT=str(sandbox), OSCAR_SUPERVISOR_WORKDIR="/volume")
    assert run.code == 0
    assert run.manifest.placement == "inner"
    assert run.out.startswith(str(sandbox / "volume"))


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
