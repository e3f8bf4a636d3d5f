# SPDX-License-Identifier: Apache-2.0
"""The bytes of a manifest that its signature covers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_oscar.core import large_json
from airflow_provider_oscar.core.shapes import as_list

#: Outputs of a manifest that is written in one go.
_FEW_OUTPUTS = 1000


def signed_form(found: Mapping[str, object]) -> bytes:
    """Return what ``supervisor/manifest.py`` signs."""
    unsigned = {name: value for name, value in found.items() if name != "signature"}
    form: Any = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": True}
    write = json.dumps if len(as_list(found.get("outputs"))) < _FEW_OUTPUTS else large_json.dump
    return write(unsigned, **form).encode("ascii")
