# SPDX-License-Identifier: Apache-2.0
"""Example DAGs to start from; installed as ``airflow_provider_oscar.example_dags``."""
