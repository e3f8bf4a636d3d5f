# SPDX-License-Identifier: Apache-2.0
"""Names of hosts, looked up in a thread of their own.

asyncio looks them up in the few threads that the whole process shares, where a name server that does not answer keeps
one for each connection that is tried: six such connections, and no name is looked up any more, nor anything else done
that wants a thread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.pool import named_pool


async def addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which they are to be tried; one that is an address already is it.

    :param host: name or address.
    :param port: of the service.
    :raises OSError: if the name is not known, or its look-ups do not come back.
    """
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return [host]
    try:
        found = await named_pool(f"looking up {host}", threads=1).call(
            socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
        )
    except TransientError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
