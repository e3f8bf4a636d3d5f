# SPDX-License-Identifier: Apache-2.0
"""Launchers of parallel programs that this machine may have."""

from __future__ import annotations

import os
import shutil

import pytest

needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun (Debian: openmpi-bin)")
needs_torchrun = pytest.mark.skipif(shutil.which("torchrun") is None, reason="needs torchrun (PyPI: torch)")


def of_the_launcher(*, crowded: bool = True) -> dict[str, str]:
    """Variables by which an installation of the launcher is found, and root is allowed to use it.

    :param crowded: there may be more ranks than processors.
    """
    found = {name: value for name, value in os.environ.items() if name.startswith(("OPAL_", "PMIX_", "LD_LIBRARY_"))}
    allowed = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"]
    return {**found, **dict.fromkeys(allowed + ["OMPI_MCA_rmaps_base_oversubscribe"] * crowded, "1")}
