# SPDX-License-Identifier: Apache-2.0
"""What the 3DGAN payload wrote, read back."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np


def showers_in(path: Path) -> dict[str, np.ndarray]:
    """Return images, energies and angles of a file."""
    with h5py.File(path) as file:
        return {name: file[name][:] for name in ("ECAL", "energy", "theta")}
