# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door as an fsspec file system: webdav4's, with this provider's credentials and redirect rules.

For files handled one by one; listings of large directories are the hook's, which reads them as they arrive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from webdav4.client import Client
from webdav4.fsspec import WebdavFileSystem
from webdav4.http import Client as WebdavHttpClient

if TYPE_CHECKING:
    from airflow_provider_oscar.hooks.dcache.hook import DCacheHook


class DCacheFileSystem(WebdavFileSystem):  # type: ignore[misc]  # webdav4 has no types that mypy can see
    """File system of one connection.

    :param hook: hook of the connection.
    :param options: passed on to fsspec.
    """

    protocol = ("dcache",)
    cachable = False

    def __init__(self, hook: DCacheHook, **options: Any) -> None:
        self._hook = hook
        client = Client(hook.settings.webdav_url, http_client=_http_client(hook))
        super().__init__(hook.settings.webdav_url, client=client, **options)


def _http_client(hook: DCacheHook) -> Any:
    """Return webdav4's client with the guard; a redirect is judged before it is followed."""

    def judge(answer: httpx.Response) -> None:
        if answer.has_redirect_location:
            hook.door.redirected(answer.request, answer)

    return WebdavHttpClient(**hook.client_options(), event_hooks={"response": [judge]})
