# SPDX-License-Identifier: Apache-2.0
"""OSCAR's REST API."""

from airflow_provider_oscar.hooks.oscar.hook import OscarHook

__all__ = ["OscarHook"]
