# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.demo``: the demo on real systems; 3 where the machine lacks something, which it names."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from oscar_testbed.demo.stage import run_demo
from oscar_testbed.errors import MissingPrerequisite, PlatformError
from oscar_testbed.real.stack import default_directory, forget, holder

from airflow_provider_oscar.core.errors import OscarProviderError
from tests.system.demo.setting import open_setting

#: Exit code where the machine lacks something.
CANNOT = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 only if all that was asked for is proven."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.demo", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="checkout with dags/ and docker/threedgan")
    parser.add_argument("--directory", type=Path, default=default_directory(), help="of the stack; used if it is up")
    options = parser.parse_args(arguments)
    project, stack = options.project.absolute(), options.directory.absolute()
    try:
        code = run_demo(project, functools.partial(open_setting, project, stack))
        if code == 0 and holder(stack) is None:
            forget(stack)  # its logs are for those who look for what went wrong
        return code
    except MissingPrerequisite as error:
        print(f"cannot: {error}", file=sys.stderr)
        return CANNOT
    except (OscarProviderError, PlatformError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
