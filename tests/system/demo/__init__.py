# SPDX-License-Identifier: Apache-2.0
"""The demo on the real stack: ``make demo BACKEND=system``.

The play, the table, the report and the exit rule are those of :mod:`oscar_testbed.demo`; what is here
is another stage for it.
"""
