# SPDX-License-Identifier: Apache-2.0
"""From a DCNiOS workflow to a DAG file: what DCNiOS builds of NiFi, built of this provider instead.

:mod:`~airflow_provider_oscar.ingest.dcnios.workflow` reads the YAML,
:mod:`~airflow_provider_oscar.ingest.dcnios.mapping` decides what becomes of each element, and
:mod:`~airflow_provider_oscar.ingest.dcnios.rendering` writes the file. None of them does any I/O.
"""
