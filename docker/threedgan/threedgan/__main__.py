# SPDX-License-Identifier: Apache-2.0
"""``python -m threedgan``, the same command line as the ``threedgan`` script."""

from __future__ import annotations

import sys

from threedgan.cli import main

sys.exit(main())
