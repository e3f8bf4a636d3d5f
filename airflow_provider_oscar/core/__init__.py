# SPDX-License-Identifier: Apache-2.0
"""Values and rules: everything that can be said without touching a network, a file or Airflow.

A module belongs here when all its functions are pure; it may import the standard library, its
neighbours and a parser (PyYAML, for FDL files), nothing else (import-linter holds it to that). What
needs a clock takes ``now``.
"""
