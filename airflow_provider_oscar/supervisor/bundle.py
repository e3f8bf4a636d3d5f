# SPDX-License-Identifier: Apache-2.0
"""Joins this package into one program, which travels as one text: into a variable, a ConfigMap, a service's script.

The program holds the modules' sources and an importer for them, so that nothing is written where it runs and
tracebacks show the lines. It is the same bytes on every machine. Only this module and ``call`` are not in it.
"""

from __future__ import annotations

import base64
import functools
import zlib
from importlib import resources

PACKAGE = "airflow_provider_oscar.supervisor"
#: Order of the sources in the program: what is imported comes first, for people who read it.
MODULES = (
    "errors", "text", "trees", "spec", "sealing", "transport", "parallel", "ranges", "stage_in", "parts", "stores",
    "destinations", "outputs", "manifest", "access", "usage", "launch", "joblog", "command", "worker", "job", "slots",
    "batch", "wrap", "main",
)  # fmt: skip

_BOOTSTRAP = '''\
# SPDX-License-Identifier: Apache-2.0
"""The supervisor of airflow-provider-oscar, joined from its modules; do not edit."""
import importlib.abc
import importlib.util
import sys
import traceback

SOURCES = {sources}


class Modules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules below from this text, before any that the image may have."""

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in SOURCES else None

    def is_package(self, name):
        return not SOURCES[name]

    def get_source(self, name):
        return SOURCES[name]

    def get_code(self, name):
        return compile(SOURCES[name], name.rpartition(".")[2] + ".py", "exec", dont_inherit=True)


sys.meta_path.insert(0, Modules())
sys.excepthook = traceback.print_exception  # finds the lines in SOURCES; the built-in one looks for files
from {package}.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
'''


@functools.cache
def program() -> str:
    """Return the whole program as Python source."""
    folder = resources.files(PACKAGE)
    sources = dict.fromkeys((PACKAGE.partition(".")[0], PACKAGE), "")
    for name in MODULES:
        sources[f"{PACKAGE}.{name}"] = folder.joinpath(f"{name}.py").read_text(encoding="utf-8")
    lines = "".join(f"    {name!r}: {source!r},\n" for name, source in sources.items())
    return _BOOTSTRAP.format(sources="{\n" + lines + "}", package=PACKAGE)


@functools.cache
def encoded_program() -> str:
    """Return the program as it travels: base64 of its zlib-compressed source."""
    return base64.b64encode(zlib.compress(program().encode("utf-8"), 9)).decode("ascii")
