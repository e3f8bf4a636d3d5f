# SPDX-License-Identifier: Apache-2.0
"""A secret that was pasted with its line end is in no message and no traceback, whatever library refuses it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pytest

from airflow_provider_oscar.core.errors import OscarProviderError
from tests.support import every_call
from tests.support.every_call import SYSTEMS, Server, http, no_pauses


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    made.answer = http(503)
    yield made
    made.close()


@pytest.mark.parametrize("secret", ["hush-hush\n", "hush-hush\r\nX-More: 1", " hush-hush"], ids=repr)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_secret_with_a_line_end_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, server: Server, system: str, secret: str
) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setattr(every_call, "SECRET", secret)
    monkeypatch.setattr(every_call, "EXTRA", {"session_token": secret} if system in ("s3", "sqs", "minio") else {})
    for call, ask in SYSTEMS[system](server.url).items():
        with pytest.raises(OscarProviderError) as raised:
            ask()
        assert "hush-hush" not in "".join(traceback.format_exception(raised.value)), call
