# SPDX-License-Identifier: Apache-2.0
"""The demo on the real stack: ``make demo BACKEND=system``.

The play, the table, the report and the exit rule are those of :mod:`airflow_provider_oscar.local.demo`; what is here
is another stage for it.
"""
