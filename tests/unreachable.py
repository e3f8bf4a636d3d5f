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

#: Airflow's own arguments, which a test compares with its signatures.
OF_AIRFLOW = Path(PROVIDER, "base_arguments.py")
#: Names that are called from outside, by whom; one that would not be reported without being listed is reported.
CALLED: dict[str, tuple[str, ...]] = {
    "Airflow, of a hook": ("hook_name",),
    "Airflow, of an operator or sensor": (
        "poke", "ui_color", "operator_extra_links", "overwrite_rtif_after_execution", "inherits_from_skipmixin",
    ),
    "Airflow, of a trigger, timetable or plugin": (
        "shared_stream_key", "deserialize", "fastapi_apps", "fastapi_root_middlewares", "external_views", "timetables",
    ),
    "OpenLineage": ("get_openlineage_facets_on_complete",),
    "tenacity": ("retry_state", "attempt_number"),
    "httpx": ("requires_response_body", "sync_auth_flow", "async_auth_flow"),
    "PyYAML": ("yaml_implicit_resolvers",),
    "boto3, as arguments": ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    "boto3, of a connection": ("_consume_headers",),
    "urllib3": ("ConnectionCls", "pool_classes_by_scheme"),
    "Python": ("__getattr__", "__dir__", "_missing_", "atexit", "find_class", "persistent_load"),
    "fsspec": ("cachable", "join_url"),
    "expat, its parser's fields": (
        "buffer_text", "buffer_size", "CharacterDataHandler", "EndElementHandler", "StartDoctypeDeclHandler",
        "StartElementHandler",
    ),
    "uvicorn, its settings": ("access_log", "should_exit", "force_exit"),
    "onnxruntime, its settings": ("inter_op_num_threads", "intra_op_num_threads", "log_severity_level"),
    "NumPy": ("trace",),
    "Starlette's router": ("redirect_slashes",),
    "tarfile": ("gname", "uname"),
    "pytest": ("pytest_addoption", "pytest_runtest_setup", "pytest_pyfunc_call"),
    "the fault switches, through ComponentFaults.take": ("watch_gone_next", "lose_next_jobs"),
}  # fmt: skip
#: Decorators whose functions are called by somebody else.
DECORATORS = ["@*.route*", "@*.get*", "@*.post*", "@*.put*", "@*.delete*", "@*.middleware*", "@*fixture*", "@hookimpl"]


class Found:
    """What vulture finds, told apart by who is said to call it.

    :param known: names that documentation, metadata or readers of JSON use.
    """

    def __init__(self, known: set[str]) -> None:
        self._known = known
        self._called = {name for names in CALLED.values() for name in names}
        self._needed: set[str] = set()
        self.lines: list[str] = []

    def look(self, paths: Iterable[str], *, reported: str) -> None:
        """Note the code below ``reported`` that nothing in ``paths`` uses and nobody else knows."""
        vulture = Vulture(ignore_decorators=DECORATORS)
        vulture.scavenge([str(ROOT / path) for path in paths], exclude=LINKS)
        for item in vulture.get_unused_code():
            path = item.filename.relative_to(ROOT)
            if not path.is_relative_to(reported) or item.name in self._known or path == OF_AIRFLOW:
                continue
            if item.name in self._called:
                self._needed.add(item.name)
            else:
                where = f"{path}:{item.first_lineno}"
                self.lines.append(f"{where}: {item.typ} {item.name!r} is not reachable: use it, or delete it")

    def superfluous(self) -> Iterator[str]:
        """Lines on names that are listed and need not be."""
        for name in sorted(self._called - self._needed):
            yield f"tests/unreachable.py: {name!r} is used, documented or gone: take it out of CALLED"


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
    found = Found(words_of_metadata() | words_of_documentation() | words_of_readers())
    found.look((PROVIDER, "dags"), reported=PROVIDER)
    found.look((TESTBED, "tests", PROVIDER), reported=TESTBED)
    found.look(("docker/threedgan", "tests"), reported="docker")
    lines = [*found.lines, *found.superfluous()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
