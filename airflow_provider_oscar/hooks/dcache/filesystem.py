# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door as an fsspec file system: webdav4's, with this provider's credentials and redirect rules.

For files handled one by one; listings of large directories are the hook's, which reads them as they arrive. Airflow's
``ObjectStoragePath`` finds both classes through entry points (``fsspec.specs``, ``universal_pathlib.implementations``).
"""

from __future__ import annotations

import warnings

import httpx
from upath import UPath
from webdav4.client import Client
from webdav4.fsspec import WebdavFileSystem
from webdav4.http import Client as WebdavHttpClient

from airflow_provider_oscar.hooks.dcache.hook import DCacheHook

# upath knows the manners of the file systems it ships and warns about all others; ours are the default ones.
warnings.filterwarnings("ignore", message="Could not find default for known protocol 'dcache'")


class _Client(Client):  # type: ignore[misc]  # webdav4 has no types that mypy can see
    """webdav4's client, with names encoded: it takes ``?``, ``#`` and ``%`` in them for parts of a URL."""

    def __init__(self, hook: DCacheHook) -> None:
        super().__init__(hook.settings.webdav_url, http_client=_http_client(hook))
        self._door = hook.door

    def join_url(self, path: str, add_trailing_slash: bool = False) -> httpx.URL:
        """Return the URL of a path; a path cannot leave the root of the connection."""
        url = self._door.url("/" + path.strip("/"), directory=add_trailing_slash)
        return httpx.URL(url if add_trailing_slash else url.rstrip("/"))


class DCacheFileSystem(WebdavFileSystem):  # type: ignore[misc]  # webdav4 has no types that mypy can see
    """File system of one connection of type ``dcache``.

    :param conn_id: connection id.
    :param options: passed on to fsspec.
    """

    protocol = ("dcache",)
    root_marker = "/"
    cachable = False

    def __init__(self, conn_id: str = DCacheHook.default_conn_name, **options: object) -> None:
        self.hook = DCacheHook(conn_id)
        url = self.hook.settings.webdav_url
        super().__init__(url, client=_Client(self.hook), **options)


class DCachePath(UPath):
    """Path below the root of a connection: ``dcache:///path``; the connection is not part of it."""

    __slots__ = ()


def _http_client(hook: DCacheHook) -> object:
    """Return webdav4's client with the guard; a redirect is judged before it is followed."""

    def judge(answer: httpx.Response) -> None:
        if answer.has_redirect_location:
            hook.door.redirected(answer.request, answer)

    return WebdavHttpClient(**hook.client_options(), event_hooks={"response": [judge]})
