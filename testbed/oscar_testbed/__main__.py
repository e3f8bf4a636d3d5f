# SPDX-License-Identifier: Apache-2.0
"""``python -m oscar_testbed``: the command ``oscar-testbed``."""

from __future__ import annotations

import sys

from oscar_testbed.cli import main

if __name__ == "__main__":
    sys.exit(main())
