# SPDX-License-Identifier: Apache-2.0
"""Tasks: each reads its arguments, calls a rule of ``model/``, hands the result to a hook, ends in a verdict."""
