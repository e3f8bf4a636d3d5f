# SPDX-License-Identifier: Apache-2.0
"""The world test: everything at once, faults at random from one seed, and the books must balance; ``make world``.

``WORLD_SECONDS`` (240 by default; an hour is a good long form), ``WORLD_OBJECTS`` and ``WORLD_SEED`` change it; the
seed of a run is printed, and the same one brings the same incidents.
``make world-short`` is a form of a minute and a half.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from oscar_testbed.fakes.s3 import find_weed
from oscar_testbed.real import postgres

from tests.world.stage import World

SECONDS = float(os.environ.get("WORLD_SECONDS", "240"))
OBJECTS = int(os.environ.get("WORLD_OBJECTS", str(int(SECONDS // 8))))
SEED = int(os.environ.get("WORLD_SEED") or random.randrange(10**6))
#: Seconds after the last incident until every run must have ended; a run needs some by itself.
PATIENCE = float(os.environ.get("WORLD_PATIENCE", "420"))
#: Seconds after it in which a run of each DAG must have ended.
RECOVERY = float(os.environ.get("WORLD_RECOVERY", "120"))
#: In the short form a machine without PostgreSQL is passed over.
MUST_HAVE_POSTGRESQL = bool(os.environ.get("WORLD_POSTGRESQL"))


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(find_weed() is None, reason="SeaweedFS is not installed")
def test_nothing_is_lost_doubled_forged_or_left_behind(capsys):
    if MUST_HAVE_POSTGRESQL and (lack := postgres.missing()):
        pytest.skip(f"the world needs PostgreSQL: {lack}")

    def say(words: str) -> None:
        with capsys.disabled():
            print(f"  {words}", flush=True)

    # SLURM's sockets need a short path.
    directory = Path(tempfile.mkdtemp(prefix="world-"))
    world = World(
        directory, seed=SEED, seconds=SECONDS, objects=OBJECTS, patience=PATIENCE, say=say, recovers_within=RECOVERY
    )
    with world:
        books = world.play()
        say("\n" + books.table())
    if books.balanced:
        shutil.rmtree(directory, ignore_errors=True)
    assert books.balanced, f"seed {SEED}; logs are below {directory}\n{books.table()}"
