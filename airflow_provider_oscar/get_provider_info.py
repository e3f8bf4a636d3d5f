# SPDX-License-Identifier: Apache-2.0
"""Provider metadata, read by Airflow while ``import airflow`` runs: this module imports nothing."""


def get_provider_info():  # type: ignore[no-untyped-def]
    """Return the provider's metadata, as ``airflow/provider_info.schema.json`` wants it."""
    return {
        "package-name": "airflow-provider-oscar",
        "name": "OSCAR",
        "description": "Runs AI workloads on new objects in S3 or dCache, on OSCAR services or on SLURM through interLink.",
    }
