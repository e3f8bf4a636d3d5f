# SPDX-License-Identifier: Apache-2.0
"""Puts pictures that the browser tests took into the documentation: ``python -m tests.support.pictures``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
TAKEN = ROOT / "demo-report"
SHOWN = ROOT / "docs" / "pictures"
#: Names in the documentation and what the tests call them.
PICTURES = {
    "connection-oscar": "dialogs/OSCAR",
    "connection-oscar-extra": "dialogs/OSCAR-extra",
    "connection-s3": "dialogs/OSCAR-S3",
    "connection-s3-extra": "dialogs/OSCAR-S3-extra",
    "connection-dcache": "dialogs/dCache-WebDAV",
    "connection-dcache-extra": "dialogs/dCache-WebDAV-extra",
    "connection-interlink-extra": "dialogs/Kubernetes-with-interLink-extra",
    "trigger": "dialogs/trigger",
    "flow": "page/flow-1024-light",
    "placements": "page/placements-1024-light",
    "jobs": "page/jobs-1024-light",
    "results": "page/results-1024-light",
    "health": "page/health-1024-light",
}
#: A picture of a screen needs no more colours, and the repository few bytes.
COLOURS = 64


def main() -> None:
    """Copy each picture, smaller."""
    SHOWN.mkdir(exist_ok=True)
    for name, taken in PICTURES.items():
        with Image.open(TAKEN / f"{taken}.png") as picture:
            picture.convert("RGB").quantize(COLOURS).save(SHOWN / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
