# SPDX-License-Identifier: Apache-2.0
"""S3 and its compatible servers."""

from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

__all__ = ["OscarS3Hook"]
