# SPDX-License-Identifier: Apache-2.0
"""A hook that is dropped leaves no open connection behind."""

from __future__ import annotations

import gc
import json
import socket
import threading
import warnings

import pytest
from airflow.sdk import Connection
from botocore.exceptions import ClientError

from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.rucio.client import RucioClient, RucioSettings
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook

ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Door:
    """Answers one request and keeps the connection, until the client closes it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._socket:
            connection, _ = self._socket.accept()
            with connection:
                while data := connection.recv(65536):
                    if data.endswith(b"\r\n\r\n"):
                        connection.sendall(ANSWER)
                self.closed.set()


def ask_dcache(url: str) -> None:
    hook = DCacheHook("d", connection=Connection(conn_id="d", conn_type="dcache", host=url, login="u", password="p"))
    assert hook.client.get(url).status_code == 404


def ask_s3_for_listings(url: str) -> None:
    json.dumps({})
    connection = Connection(conn_id="s", conn_type="oscar_s3", host=url, login="k", password="p")
    assert OscarS3Hook("s", connection=connection)._http_client().get(url).status_code == 404


def ask_s3_by_boto3(url: str) -> None:
    connection = Connection(conn_id="s", conn_type="oscar_s3", host=url, login="k", password="p")
    with pytest.raises(ClientError):
        OscarS3Hook("s", connection=connection).client.list_buckets()


def ask_rucio(url: str) -> None:
    connection = Connection(
        conn_id="r", conn_type="rucio", host=url, password="token", extra=json.dumps({"account": "a"})
    )
    client = RucioClient(RucioSettings.from_connection(connection))
    assert client._http.get(url).status_code == 404


@pytest.mark.parametrize("ask", [ask_dcache, ask_s3_for_listings, ask_s3_by_boto3, ask_rucio])
def test_a_dropped_hook_closes_its_connections(ask):
    door = Door()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        ask(door.url)
        gc.collect()
    assert door.closed.wait(30)
    assert [each for each in caught if door.url.rpartition(":")[2] in str(each.message)] == []
