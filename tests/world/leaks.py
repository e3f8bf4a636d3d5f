# SPDX-License-Identifier: Apache-2.0
"""A steady stream of objects and jobs without any fault, and what triggerer and API server hold meanwhile.

``python -m tests.world.leaks``, or ``make leaks``: an hour, or ``LEAKS_SECONDS``. Every figure has to stay flat; the
first third is left out, while caches and pools fill.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.support.leaks import Meter
from tests.world.stage import World

SECONDS = float(os.environ.get("LEAKS_SECONDS", "3600"))
#: Seconds between two objects, of both inboxes together.
EVERY = float(os.environ.get("LEAKS_EVERY", "8"))
PARTS = ("triggerer", "triggerer 2", "api-server")


def main() -> int:
    """Measure once, and print; 1 if anything grows or anything went wrong."""
    say = partial(print, flush=True)
    directory = Path(tempfile.mkdtemp(prefix="leaks-"))
    objects = max(int(SECONDS / EVERY), 4)
    with World(
        directory, seed=0, seconds=SECONDS, objects=objects, patience=600.0, say=say, kinds=(), recovers_within=600.0
    ) as world:
        parts = [name for name in PARTS if world.airflow.pid(name) is not None]
        with Meter(lambda: {name: world.airflow.pid(name) for name in parts}) as meter:
            books = world.play()
    found = meter.growths()
    say(f"{SECONDS:.0f} s, {objects} objects, {len(meter.samples[parts[0]])} samples of each process")
    for each in found:
        say(str(each))
    say(books.table())
    if bad := [each for each in found if not each.flat]:
        say(f"{len(bad)} figures grow; logs are below {directory}")
    elif books.balanced:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if books.balanced and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
