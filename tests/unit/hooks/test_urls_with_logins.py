# SPDX-License-Identifier: Apache-2.0
"""A login or token that somebody put into a URL is shown nowhere: not by an error, the Test button, or an asset."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError, OscarProviderError, bare_url, bare_urls
from airflow_provider_oscar.core.objects import split_uri
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.rucio.client import RucioSettings
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.slurm import SlurmHook
from airflow_provider_oscar.hooks.stomp.client import StompSettings
from airflow_provider_oscar.ingest import NewObjects
from airflow_provider_oscar.watch.notifications.choice import Notifications

SECRET = "hush-hush-secret"
URLS = [
    f"http://u:{SECRET}@127.0.0.1:9", f"https://{SECRET}@127.0.0.1:9/x", f"ftp://u:{SECRET}@h/x",
    f"https://127.0.0.1:9/x?authz={SECRET}", f"https://127.0.0.1:9/#{SECRET}", f"u:{SECRET}@127.0.0.1:9",
]  # fmt: skip
HOOKS = {"oscar_s3": OscarS3Hook, "dcache": DCacheHook, "oscar": OscarHook, "http": SlurmHook}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("field", ["host", "endpoint_url", "frontend_url", "token_endpoint"])
@pytest.mark.parametrize("kind", HOOKS)
def test_the_test_button_shows_no_login_of_a_url(kind, field, url):
    fields = {"host": "https://127.0.0.1:9"} | ({"host": url} if field == "host" else {})
    extra = {} if field == "host" else {field: url, "auth_type": "oidc", "refresh_token": "r"}
    hook = HOOKS[kind]("c", connection=Connection(conn_id="c", conn_type=kind, extra=json.dumps(extra), **fields))
    try:
        shown = str(hook.test_connection())
    except OscarProviderError as error:
        shown = str(error)
    assert SECRET not in shown
    try:
        shown = repr(getattr(hook, "settings", hook))
    except OscarProviderError as error:
        shown = str(error)
    assert SECRET not in shown


@pytest.mark.parametrize("scheme", ["s3", "dcache", "webdav", "oscar", "ftp"])
def test_a_watched_uri_with_a_login_is_refused_without_showing_it(scheme):
    with pytest.raises(DefinitionError) as error:
        NewObjects(f"{scheme}://KEY:{SECRET}@place/in/")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "uri", [f"s3://K:{SECRET}@b/k", f"https://u:{SECRET}@h/k", f"s3://b/k?X-Amz-Signature={SECRET}"]
)
def test_an_object_uri_with_a_secret_is_refused_without_showing_it(uri):
    with pytest.raises(DefinitionError) as error:
        split_uri(uri)
    assert SECRET not in str(error.value)


def test_a_connection_before_the_bucket_is_read_as_object_storage_path_writes_it():
    assert "oscar_store" in repr(NewObjects("s3://oscar_store@incoming/raw/").asset.watchers[0].trigger.serialize())


@given(st.text(max_size=60))
def test_whatever_stands_before_an_at_sign_is_not_shown(text):
    assert "secret@" not in bare_url(f"https://user:secret@{text}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot go to 'ftp://u:secret@h/p?q=secret#f' now", "cannot go to 'ftp://h/p' now"),
        ("URL('https://h:8443/a?X-Amz-Signature=secret')", "URL('https://h:8443/a')"),
        ("a@b: no URL ?here", "a@b: no URL ?here"),
    ],
)
def test_a_librarys_words_lose_what_their_urls_hold(text: str, shown: str):
    assert bare_urls(text) == shown


PLACES = {
    "queue": lambda url: Notifications(kind="sqs", queue_url=url),
    "broker": lambda url: StompSettings.from_connection(Connection(conn_id="c", conn_type="generic", host=url)),
    "rucio": lambda url: RucioSettings.from_connection(Connection(conn_id="c", conn_type="generic", host=url)),
    "rucio's tokens": lambda url: RucioSettings.from_connection(
        Connection(conn_id="c", conn_type="generic", host="https://h", extra=json.dumps({"auth_host": url}))
    ),
}


@pytest.mark.parametrize("url", [f"https://u:{SECRET}@h", f"https://{SECRET}@h"])
@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_a_place_with_a_login_in_its_url_is_refused_without_showing_it(make, url):
    with pytest.raises(DefinitionError) as error:
        make(url)
    assert SECRET not in str(error.value)
