# SPDX-License-Identifier: Apache-2.0
"""dCache, and plain WebDAV servers: REST frontend, WebDAV door, events, tape, macaroons.

Rules are in small modules without I/O (flows, parsers, credentials); :mod:`.hook` resolves the connection and sends.
"""

from airflow_provider_oscar.hooks.dcache.entries import NamespaceEntry
from airflow_provider_oscar.hooks.dcache.hook import DCacheHook
from airflow_provider_oscar.hooks.dcache.settings import DCacheSettings

__all__ = ["DCacheHook", "DCacheSettings", "NamespaceEntry"]
