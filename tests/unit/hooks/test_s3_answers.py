# SPDX-License-Identifier: Apache-2.0
"""What counts as the answer of a store, whatever it calls its content."""

from __future__ import annotations

import pytest

from airflow_provider_oscar.core.errors import TransientError
from airflow_provider_oscar.hooks.s3.errors import require_store

HTML = {"content-type": "text/html; charset=utf-8"}


def ask(operation: str, headers: dict[str, str], body: bytes) -> None:
    require_store(200, headers, body, operation, conn_id="store", endpoint="http://s3.test")


@pytest.mark.parametrize("body", [b"", b'<CreateBucketResponse xmlns="http://s3.amazonaws.com/doc/2006-03-01"/>'])
@pytest.mark.parametrize("operation", ["CreateBucket", "DeleteObject", "ListObjectsV2"])
def test_xml_or_nothing_that_is_called_html_is_an_answer_of_a_store(operation, body):
    ask(operation, HTML, body)


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><title>Log in</title>", b"<html>", b"Please log in"])
@pytest.mark.parametrize("operation", ["CreateBucket", "DeleteObject", "ListObjectsV2"])
def test_a_page_is_not(operation, body):
    with pytest.raises(TransientError, match=f"what answered to {operation} is not an S3 store"):
        ask(operation, HTML, body)
