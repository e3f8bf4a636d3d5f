# SPDX-License-Identifier: Apache-2.0
"""Answers of dCache and of WebDAV servers as errors of this provider, sorted by what the caller does next."""

from __future__ import annotations

import httpx

from airflow_provider_oscar.core.errors import OscarProviderError, TransientError, quoted
from airflow_provider_oscar.core.shapes import sentence
from airflow_provider_oscar.hooks.http.errors import error_class, http_error, redirect_target, retry_after

#: dCache answers 429 after three failed logins and does not say for how long.
DELAY_WHEN_UNSAID = 60.0


def is_dcache_server(headers: httpx.Headers) -> bool:
    """Whether an answer names dCache as its server; a proxy before it may put its own name there."""
    return "dcache" in headers.get("server", "").lower()


def status_error(answer: httpx.Response, *, display_name: str, action: str) -> OscarProviderError:
    """Return the error for an answer that does not mean success.

    :param answer: the answer, its body read or not.
    :param display_name: words that name the connection.
    :param action: what was attempted, in words, with paths quoted.
    """
    status = answer.status_code
    reply = f"HTTP {status}{_text(answer) or _reason_phrase(answer)}"
    prefix = f"{display_name}: cannot {action}"
    delay = retry_after(answer.headers, DELAY_WHEN_UNSAID if status == 429 else None)
    return http_error(status, f"{prefix}: {_reason(status, reply, answer)}", delay=delay)


def _reason(status: int, reply: str, answer: httpx.Response) -> str:
    """Return what the status means to the user, and the remedy."""
    if status == 401:
        return (
            f"the server does not accept the credentials ({reply}); "
            "correct login and password, or renew the token or certificate"
        )
    if status == 403:
        return f"permission denied ({reply}); {_remedy(answer)}, or correct the path"
    if status in (404, 410):
        return f"there is no such path ({reply})"
    if status == 429:
        return f"the server asks us to wait ({reply})"
    if 300 <= status < 400:
        target = redirect_target(answer.headers)
        return f"the server redirects to {target}, where it should not ({reply}); check scheme, host and port"
    if status < 300:
        return f"something else answered in the server's place ({reply}); check scheme, host and port"
    if issubclass(error_class(status), TransientError):
        return f"the server cannot do it now ({reply})"
    return f"refused ({reply})"


#: Rights that requests need, with the letters of dCache's access control lists (its book, "ACLs in dCache").
_RIGHTS = {
    "GET": "to read the file (r)",
    "PUT": "to add files (f) and directories (s) to its directory, and to replace a file (D there, d on the file)",
    "MKCOL": "to add directories (s) there",
    "DELETE": "to delete (D on its directory, d on itself)",
}


def _remedy(answer: httpx.Response) -> str:
    """Return what to ask for, by the request; a token or macaroon may lack it as well as the account."""
    try:
        request = answer.request
    except RuntimeError:
        return "ask for the right"
    listing = request.headers.get("depth", "0") != "0" or request.url.params.get("children") == "true"
    if listing or "/api/v1/events" in request.url.path:
        right = "to list the directory (l), "
    else:
        right = f"{_RIGHTS[request.method]}, " if request.method in _RIGHTS else ""
    return f"the account or its token needs the rights {right}to look at it (t) and to enter (x) what is on the way"


def _reason_phrase(answer: httpx.Response) -> str:
    """Quote the status line's reason where it is not the usual one: dCache says there why a login failed."""
    reply = answer.reason_phrase.strip()
    known = {phrase.lower() for phrase in (httpx.codes.get_reason_phrase(answer.status_code), "Server Error")}
    return f": {quoted(reply)}" if reply and reply.lower() not in known else ""


def _text(answer: httpx.Response) -> str:
    """Quote what the body says where it is meant to be read; an HTML page or unknown bytes are left out."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/plain", "application/json", "application/problem+json"):
        return ""
    try:
        text = answer.text.strip()
    except httpx.ResponseNotRead:
        return ""
    return f": {quoted(sentence(text))}" if text else ""
