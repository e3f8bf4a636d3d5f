# SPDX-License-Identifier: Apache-2.0
"""``python -m oscar_testbed.demo run|up|down``: what the Makefile calls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_provider_oscar.core.errors import OscarProviderError
from oscar_testbed.demo.stage import bring_down, bring_up, run_demo, serve
from oscar_testbed.errors import PlatformError


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 only if all that was asked for is proven."""
    parser = argparse.ArgumentParser(prog="python -m oscar_testbed.demo", description=__doc__)
    parser.add_argument("command", choices=("run", "up", "down", "serve"))
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="checkout with dags/ and docker/threedgan")
    options = parser.parse_args(arguments)
    project = options.project.resolve()
    if options.command != "down" and not (project / "dags" / "threedgan_inference.py").is_file():
        parser.error(f"{project} holds no dags/threedgan_inference.py; run it in a checkout or name one with --project")
    action = {"run": run_demo, "up": bring_up, "down": bring_down, "serve": serve}[options.command]
    try:
        return action(project)
    except (OscarProviderError, PlatformError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
