# SPDX-License-Identifier: Apache-2.0
"""The embedded dCache: a WebDAV door, the REST frontend with events, and the namespace they share."""

from oscar_testbed.fakes.dcache.server import LocalDCache

__all__ = ["LocalDCache"]
