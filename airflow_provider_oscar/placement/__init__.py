# SPDX-License-Identifier: Apache-2.0
"""Where a piece of work runs: targets and the policies that choose between them; pure."""
