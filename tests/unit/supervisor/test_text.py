# SPDX-License-Identifier: Apache-2.0
"""What the supervisor shows of a store's refusal."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.supervisor.text import sentence


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
         "Access Denied."),
        (b'{"errors":[{"message":"Permission denied","status":"403"}]}', "Permission denied"),
        (b"<Error><Code>SlowDown</Code></Error>", "<Error><Code>SlowDown</Code></Error>"),
        (b"<Error><Code>Cut</Code><Message>half", "<Error><Code>Cut</Code><Message>half"),
        (b" plain\xff ", "plain\ufffd"),
    ],
)  # fmt: skip
def test_the_message_of_a_refusal_is_told_without_what_is_around_it(body: bytes, said: str) -> None:
    assert sentence(body) == said
