# SPDX-License-Identifier: Apache-2.0
"""The program that runs beside the user's command on the compute side.

``supervise.py`` is one file for Python 3.8 and its standard library, because it travels as one
environment variable into images we did not build. It imports nothing of this package and nothing of this
package imports it: :mod:`airflow_provider_oscar.jobs.builder` reads it as text.
"""
