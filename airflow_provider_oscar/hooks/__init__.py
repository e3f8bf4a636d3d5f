# SPDX-License-Identifier: Apache-2.0
"""One outside system each: the only modules that speak to S3, dCache, OSCAR or Kubernetes.

A hook resolves its connection, makes requests, and returns values of ``core/`` or raises errors of
``core/errors.py``. It decides nothing about tasks.
"""

from __future__ import annotations

from airflow_provider_oscar.hooks.http.redaction import redact_logs

redact_logs()
