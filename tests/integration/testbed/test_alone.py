# SPDX-License-Identifier: Apache-2.0
"""The test bed without the provider: for people who test clients of OSCAR or interLink."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import oscar_testbed

#: The one package that plays a use case of the provider.
DEMO = "oscar_testbed.demo"
HIDDEN = ("airflow_provider_oscar", "airflow")
PROGRAM = """
import importlib, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"{{name}} is hidden", name=name)

sys.meta_path.insert(0, Hidden())
for name in {modules}:
    importlib.import_module(name)
for name in {hidden}:
    assert name not in sys.modules
"""


def modules() -> list[str]:
    found = pkgutil.walk_packages(oscar_testbed.__path__, "oscar_testbed.")
    return [each.name for each in found if not f"{each.name}.".startswith(f"{DEMO}.")]


def test_everything_but_the_demo_imports_without_provider_and_airflow():
    names = modules()
    assert {"oscar_testbed.platform", "oscar_testbed.real.stack", "oscar_testbed.contract.oscar"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(hidden=HIDDEN, modules=names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
