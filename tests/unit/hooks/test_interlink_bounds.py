# SPDX-License-Identifier: Apache-2.0
"""An API server that answers without end, or sends elsewhere, over a socket.

Keeps row T11 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from airflow.sdk import Connection

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, TransientError
from airflow_provider_oscar.hooks.interlink import bounds
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from tests.support.handlers import QuietHandler, serving


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str], *, endless: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Serve one answer to every request; yields the address and what was asked for."""
    asked: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(b'{"items": [')
                while endless:
                    self.wfile.write(b" " * 65_536)

    with serving(Handler) as url:
        yield url, asked


def hook(url: str) -> InterLinkHook:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "hush"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    extra = json.dumps({"kube_config_secret": json.dumps(config)})
    made = InterLinkHook(connection=Connection(conn_id="i", conn_type="interlink", extra=extra))
    made.pauses = ()
    return made


def test_an_answer_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(bounds, "ANSWER_LIMIT", 1_000_000)
    answers = answering(200, {"Content-Type": "application/json"}, endless=True)
    with answers as (url, _), pytest.raises(TransientError, match="more than 1000000 bytes"):
        hook(url).list_pods()


@pytest.mark.parametrize("status", [403, 500])
def test_the_text_of_an_error_without_end_is_cut(status):
    answers = answering(status, {"Content-Type": "text/plain"}, endless=True)
    with answers as (url, _), pytest.raises(OscarProviderError) as raised:
        hook(url).list_pods()
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status):
    with answering(200, {}) as (inside, asked):
        away = answering(status, {"Location": f"{inside}/latest/meta-data"})
        with away as (url, _), pytest.raises((DefinitionError, TransientError), match="redirects"):
            hook(url).list_pods()
    assert asked == []
