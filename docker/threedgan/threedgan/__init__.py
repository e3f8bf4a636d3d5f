# SPDX-License-Identifier: Apache-2.0
"""3DGAN inference: calorimeter showers from a generator of the published architecture, in a container or beside one.

This package is the payload; it knows nothing of Airflow, object stores or schedulers. It reads one HDF5 file, writes
showers, metrics and a picture, and leaves staging to whoever started it. Nothing heavy is imported here.
"""

from __future__ import annotations

__version__ = "0.1.0"
