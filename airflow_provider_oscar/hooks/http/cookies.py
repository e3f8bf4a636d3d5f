# SPDX-License-Identifier: Apache-2.0
"""Cookies of servers, which load balancers use to find the same server again, as far as they can be sent back."""

from __future__ import annotations

import urllib.request
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy


class _SendableCookies(DefaultCookiePolicy):
    """Takes no cookie with bytes beyond ASCII: httpx could not send it back, and every later request would fail."""

    def set_ok(self, cookie: Cookie, request: urllib.request.Request) -> bool:
        """Called for every cookie that an answer sets."""
        text = f"{cookie.name}{cookie.value or ''}{cookie.path}{cookie.domain}"
        return text.isascii() and text.isprintable() and super().set_ok(cookie, request)


def cookie_jar() -> CookieJar:
    """Return a jar for one client."""
    return CookieJar(_SendableCookies())
