# SPDX-License-Identifier: Apache-2.0
"""Records what Airflow's official Helm chart says of the values in ``deploy/helm-values.yaml``.

``python -m tests.support.chart DIRECTORY`` reads the unpacked chart and writes ``tests/unit/deploy/chart.json``: its
version and, for each value that is set, the type that its schema gives, ``free`` below a value that takes any keys,
``renamed`` if its notes call it deprecated, or ``unknown``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "deploy" / "helm-values.yaml"
RECORD = ROOT / "tests" / "unit" / "deploy" / "chart.json"


def paths(values: Mapping[str, object], before: str = "") -> Iterator[str]:
    """Yield the dotted name of each value that is set."""
    for name, value in values.items():
        here = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{here}.")
        else:
            yield here


def kind_of(path: str, schema: Mapping[str, object], renamed: set[str]) -> str:
    """Return what the chart says of one value."""
    parts = path.split(".")
    if any(".".join(parts[:length]) in renamed for length in range(1, len(parts) + 1)):
        return "renamed"
    found: object = schema
    for part in parts:
        if not isinstance(found, Mapping):
            return "unknown"
        known = found.get("properties")
        if isinstance(known, Mapping) and part in known:
            found = known[part]
        elif found.get("$ref") or (not known and found.get("type") == "object"):
            return "free"
        else:
            return "free" if isinstance(found.get("additionalProperties"), Mapping) else "unknown"
    return str(found.get("type") or "free") if isinstance(found, Mapping) else "unknown"


def record(chart: Path) -> dict[str, object]:
    """Return what is written, for an unpacked chart."""
    schema = json.loads((chart / "values.schema.json").read_text())
    notes = (chart / "templates" / "NOTES.txt").read_text()
    renamed = set(re.findall(r"`([\w.]+)` has been renamed", notes))
    values = yaml.safe_load(VALUES.read_text())
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
    return {
        "chart": version,
        "values": {path: kind_of(path, schema, renamed) for path in sorted(paths(values))},
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(Path(sys.argv[1])), indent=1) + "\n")
