#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Says which failed tests passed when they were run once more, and whether that is tolerated.

Run as ``unstable.py FIRST SECOND LIST``: pytest's ``lastfailed`` after the first run and after the second one, and the
dated list. The exit code is 0 only if no test failed twice and every unstable one is on the list.
"""

import datetime
import json
import sys
from pathlib import Path


def unstable(first, second):
    """Tests that failed the first time only, and those that failed twice."""
    return sorted(set(first) - set(second)), sorted(set(first) & set(second))


def tolerated(text, today):
    """Tests of the list whose day has not passed."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {name for day, name in lines if datetime.date.fromisoformat(day) >= today}


def main(arguments):
    """Print what is unstable; return the exit code."""
    first, second, listed = (Path(argument) for argument in arguments)
    now_and_then, always = unstable(*(json.loads(path.read_text() or "{}") for path in (first, second)))
    known = tolerated(listed.read_text(), datetime.datetime.now(datetime.timezone.utc).date())  # noqa: UP017 - any Python 3
    for name in always:
        print(f"CI: failed twice: {name}")
    for name in now_and_then:
        print(f"CI: unstable{', tolerated for now' if name in known else ''}: {name}")
    if set(now_and_then) - known:
        print(f"CI: an unstable test is a failure: mend it, or list it with a date in {listed}")
    return 1 if always or set(now_and_then) - known else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
