# SPDX-License-Identifier: Apache-2.0
"""The DAG files that engineers start from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "dags"


def load(name: str) -> ModuleType:
    """Import a DAG file as the DAG processor does: by path, leaving nothing in the source tree."""
    spec = importlib.util.spec_from_file_location(f"dag_file_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
