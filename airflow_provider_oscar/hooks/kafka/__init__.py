# SPDX-License-Identifier: Apache-2.0
"""Kafka, through the client of Airflow's provider for Apache Kafka (extra ``kafka``)."""
