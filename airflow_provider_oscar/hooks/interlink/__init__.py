# SPDX-License-Identifier: Apache-2.0
"""Kubernetes with interLink's virtual nodes."""

from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook

__all__ = ["InterLinkHook"]
