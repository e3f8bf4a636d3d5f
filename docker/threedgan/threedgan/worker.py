# SPDX-License-Identifier: Apache-2.0
"""A persistent worker: one input file after another as each is told of, weights and network loaded once.

The other side is the supervisor of airflow-provider-oscar (``OffloadBatch(persistent_worker=True)``): a line of
standard input is a JSON object with the variables of one input file, the answer a line with the exit code that a
process of its own would have ended with.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from threedgan.errors import PayloadError
from threedgan.inference import infer, load
from threedgan.settings import Settings

log = logging.getLogger("threedgan")


def serve(
    read_settings: Callable[[Mapping[str, str]], Settings],
    environment: Mapping[str, str],
    requests: Iterable[str],
    answers: TextIO,
) -> int:
    """Do each input file and answer with its exit code; return how many there were.

    :param read_settings: makes settings of variables.
    :param environment: the worker's own variables; those of a request win.
    :param requests: lines.
    :param answers: where the exit codes go.
    """
    loaded = None
    count = 0
    for line in requests:
        count += 1
        code = os.EX_OK
        try:
            settings = read_settings({**environment, **json.loads(line)})
            loaded = loaded or load(settings)
            found = infer(settings, loaded)
            log.info("done: %d showers, %.3f s per shower", found["showers"], found["seconds_per_shower"])
        except PayloadError as error:
            log.error("%s", " ".join(str(error).splitlines()))
            code = error.exit_code
        answers.write(f"{code}\n")
        answers.flush()
    return count
