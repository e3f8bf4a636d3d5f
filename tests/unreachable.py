# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.unreachable``: code that nobody can reach, by vulture; part of ``make lint``.

The provider has to be reached by itself, by Airflow, or by users: its tests do not count. The test bed is there for
tests. What Airflow and other libraries call by name is listed here with its reason; what users call is in the
documentation, in the example DAGs, in the page or in the provider's metadata, whose words count as uses.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parents[1]
PROVIDER, TESTBED = "airflow_provider_oscar", "testbed/oscar_testbed"
#: The same files under the names the wheels have.
LINKS = ["*/example_dags/*", "*/demo/payload/*"]

#: Names that are called from outside, by whom.
CALLED: dict[str, tuple[str, ...]] = {
    "Airflow, of a hook": ("conn_name_attr", "hook_name", "get_conn", "requires_response_body"),
    "Airflow, of an operator or sensor": (
        "execute", "execute_complete", "on_kill", "poke", "template_*", "ui_color", "operator_extra_links", "get_link",
        "ti_key", "custom_operator_name", "overwrite_rtif_after_execution", "inherits_from_skipmixin", "resume",
    ),
    "Airflow, of a trigger or plugin": (
        "shared_stream_key", "filter_shared_stream", "fastapi_apps", "fastapi_root_middlewares", "external_views",
        "react_apps", "listeners", "operator_extra_links", "timetables",
        "deserialize", "task_instance",
    ),
    "tenacity, httpx, PyYAML and boto3": (
        "retry_state", "attempt_number", "sync_auth_flow", "async_auth_flow", "yaml_implicit_resolvers", "loader",
        "aws_*",
    ),
    "Python": ("__getattr__", "__dir__", "_missing_", "frame", "find_class", "persistent_load"),
    "fsspec and universal_pathlib": ("schemes", "get_fs", "protocol", "root_marker", "cachable", "join_url"),
    "expat, its parser's fields": ("buffer_text", "buffer_size", "*Handler"),
    "requests and the clients of Kubernetes, uvicorn and onnxruntime, their settings": (
        "verify_ssl", "retries", "access_log", "should_exit", "force_exit", "media_type", "*_op_num_threads",
        "log_severity_level", "trace",
    ),
    "OpenLineage": ("get_openlineage_*",),
    "users of OSCAR's routes, which the hook has (OscarRoutes)": ("get_*",),
    "Starlette's router": ("redirect_slashes",),
    "tarfile": ("gid", "gname", "uname"),
    "pytest": ("pytest_*", "oscar_platform", "object_store"),
    "the DAG processor and the tests of the DAGs": ("EXPECT_*", "ingest", "per_object"),
    "the fault switches, through ComponentFaults.take": (
        "*_next", "*_failures", "lose_*", "drop_*", "truncate_*", "empty_*",
    ),
    "operators of the real stack, by hand": ("processes",),
}  # fmt: skip
#: Decorators whose functions are called by somebody else.
DECORATORS = ["@*.route*", "@*.get*", "@*.post*", "@*.put*", "@*.delete*", "@*.middleware*", "@*fixture*", "@hookimpl"]
#: Not reachable, and known: what is being built. Empty when nothing is.
PENDING: frozenset[str] = frozenset()


def unreachable(paths: Iterable[str], *, reported: str, known: set[str]) -> Iterator[str]:
    """Lines on code below ``reported`` that nothing in ``paths`` uses and nobody else knows."""
    vulture = Vulture(ignore_names=[name for names in CALLED.values() for name in names], ignore_decorators=DECORATORS)
    vulture.scavenge([str(ROOT / path) for path in paths], exclude=LINKS)
    for item in vulture.get_unused_code():
        path = item.filename.relative_to(ROOT)
        if path.is_relative_to(reported) and item.name not in known | PENDING:
            yield f"{path}:{item.first_lineno}: {item.typ} {item.name!r} is not reachable: use it, or delete it"


def words_of_metadata() -> set[str]:
    """Identifiers in strings of the modules that name classes and functions for Airflow."""
    found = set(re.findall(r"\w+", (ROOT / "setup.cfg").read_text()))
    tables = [f"cli/{path.name}" for path in sorted((ROOT / PROVIDER / "cli").glob("*.py"))]
    for name in ("__init__.py", "get_provider_info.py", *tables):
        for node in ast.walk(ast.parse((ROOT / PROVIDER / name).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.findall(r"\w+", node.value))
    return found


def words_of_documentation() -> set[str]:
    """Identifiers in code of the documentation."""
    found: set[str] = set()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.rst")):
        for code in re.findall(r"```.*?```|`[^`\n]+`", path.read_text(), re.DOTALL):
            found.update(re.findall(r"[A-Za-z_]\w+", code))
    return found


def words_of_readers() -> set[str]:
    """Identifiers in the provider's page, which reads the API, and in the schemas, for who reads JSON."""
    readers = (*(ROOT / PROVIDER / "plugins/ui/static").glob("*.js"), *(ROOT / PROVIDER).rglob("*.schema.json"))
    return set(re.findall(r"[A-Za-z_]\w+", "".join(each.read_text() for each in readers)))


def main() -> int:
    """Print what is unreachable; 1 if anything is."""
    known = words_of_metadata() | words_of_documentation() | words_of_readers()
    lines = [
        *unreachable((PROVIDER, "dags"), reported=PROVIDER, known=known),
        *unreachable((TESTBED, "tests", PROVIDER), reported=TESTBED, known=known),
        *unreachable(("docker/threedgan", "tests"), reported="docker", known=known),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
