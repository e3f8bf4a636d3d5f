# SPDX-License-Identifier: Apache-2.0
"""Many input files in one process: interpreter, libraries, weights and network are loaded once for all of them.

A job with several inputs gets their directory as ``INPUT_FILE_PATH``. Results keep the directories of their inputs, so
that files of one name in two directories stay apart. A file that is unusable stops no other, and fails the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from threedgan.errors import InputError, MissingInputError, first_line
from threedgan.inference import infer, load, write_json
from threedgan.settings import Settings

log = logging.getLogger("threedgan")
#: Files that the metrics name one by one; all are counted.
TOLD = 1000


def infer_many(settings: Settings) -> dict[str, Any]:
    """Generate showers for each file below a directory; return metrics of all.

    :param settings: ``input`` is the directory.
    :raises PayloadError: if there is no file, or after all others are done if some were unusable.
    """
    started = time.perf_counter()
    paths = list(_files(settings.input))
    if not paths:
        raise MissingInputError(f"{settings.input}: there is no input file in this directory")
    loaded = load(settings)
    done: list[dict[str, Any]] = []
    bad: list[str] = []
    stems: set[Path] = set()
    counts = {"objects": 0, "showers": 0}
    for path in paths:
        name = path.relative_to(settings.input)
        # Results are named by the stem; of two files with the same one the second gets a directory.
        place = settings.output / (name if name.with_suffix("") in stems else name.parent)
        stems.add(name.with_suffix(""))
        one = replace(settings, input=path, output=place, metrics_file=None)
        try:
            found = infer(one, loaded)
        except (InputError, MissingInputError) as error:
            log.error("%s", first_line(error))
            bad.append(first_line(error))
            continue
        counts["objects"] += 1
        counts["showers"] += found["showers"]
        if len(done) < TOLD:
            done.append({"input": str(name), "showers": found["showers"], "seconds": found["seconds"]["wall"]})
    metrics = {
        **counts,
        "device": loaded.engines.chosen.device,
        "engine": loaded.engines.chosen.name,
        "requested": {"cuda": "gpu"}.get(settings.provider, settings.provider),
        "warnings": list(loaded.warnings),
        "unusable": bad[:TOLD],
        "files": done,
        "seconds": {"load": round(loaded.seconds, 4), "wall": round(time.perf_counter() - started, 4)},
    }
    if settings.metrics_file is not None:
        write_json(settings.metrics_file, metrics)
    if bad:
        raise InputError(f"{len(bad)} of {len(paths)} input files are unusable, the others are done: {bad[0]}")
    return metrics


def _files(directory: Path) -> Iterator[Path]:
    """Files below a directory in order of their names; links and special files are none."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path
