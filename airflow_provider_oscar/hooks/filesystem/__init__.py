# SPDX-License-Identifier: Apache-2.0
"""Any file system that fsspec knows, through Airflow's own object storage where a provider has registered it."""
