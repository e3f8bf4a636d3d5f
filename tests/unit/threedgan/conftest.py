# SPDX-License-Identifier: Apache-2.0
"""Input files and small helpers for the payload's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from threedgan.data import synthetic_showers


@pytest.fixture
def input_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an input file; datasets can be replaced, or left out with None."""

    def write(count: int = 3, name: str = "in.h5", **replaced: np.ndarray | None) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for dataset, values in {**synthetic_showers(count, seed=7), **replaced}.items():
                if values is not None:
                    file.create_dataset(dataset, data=values)
        return path

    return write
