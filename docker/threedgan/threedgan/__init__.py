# SPDX-License-Identifier: Apache-2.0
"""3DGAN inference: calorimeter showers from a generator of the published architecture, in a container or beside one.

This package is the payload; it knows nothing of Airflow, object stores or schedulers. It reads one HDF5 file, writes
showers, metrics and a picture, and leaves staging to whoever started it. Nothing heavy is imported here.
"""

from __future__ import annotations

import os

# onnxruntime >= 1.29 reports every run to its maker, and leaves an identifier in the home directory, unless told not
# to before it is imported (https://github.com/microsoft/onnxruntime/pull/27379; the second is an earlier name).
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ["ORT_TELEMETRY_DISABLED"] = "1"

__version__ = "0.1.0"
