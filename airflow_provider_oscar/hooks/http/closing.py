# SPDX-License-Identifier: Apache-2.0
"""Connections of clients that a hook keeps: closed with the hook, where nobody closes it.

Airflow's hooks are dropped, seldom closed. A client of httpx leaves its sockets to the garbage collector then.
"""

from __future__ import annotations

import weakref

import httpx


def closes_itself(client: httpx.Client) -> httpx.Client:
    """Return a client whose connections are closed as soon as nobody has it.

    :param client: fresh. httpx has no word for the transports of a client that keeps its proxies; they do not know it.
    """
    for transport in (client._transport, *client._mounts.values()):
        if transport is not None:
            weakref.finalize(client, transport.close).atexit = False
    return client
