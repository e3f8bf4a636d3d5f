# SPDX-License-Identifier: Apache-2.0
"""Tasks: each reads its arguments, calls a rule of ``core/`` or ``jobs/``, hands the result to a hook."""
