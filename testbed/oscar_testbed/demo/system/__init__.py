# SPDX-License-Identifier: Apache-2.0
"""The demo on the real stack: ``oscar-testbed demo --backend system``.

The scenario, the table, the report and the exit rule are those of :mod:`oscar_testbed.demo`; what is here are other
systems for it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from oscar_testbed.demo.runner import run_demo
from oscar_testbed.demo.system.setting import open_setting
from oscar_testbed.real.stack import default_directory, forget, owner


def run_on_stack(directory: Path, report: Path, *, stack: Path | None, patience: float) -> int:
    """Run the demo on the real stack; returns the exit code.

    :param directory: emptied first; everything but the stack is written below it.
    :param report: where ``report.html`` goes.
    :param stack: directory of the stack; one that is up is used and left as it is. None for the usual place.
    :param patience: seconds without any change of a run after which it is given up.
    :raises MissingPrerequisite: naming what the machine lacks.
    """
    where = (stack or default_directory()).absolute()
    code = run_demo(directory, report, open_setting=functools.partial(open_setting, where), patience=patience)
    if code == 0 and owner(where) is None:
        forget(where)  # its logs are for those who look for what went wrong
    return code
