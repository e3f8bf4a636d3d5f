# SPDX-License-Identifier: Apache-2.0
"""STOMP: frames as the specification has them, and a subscription over sockets to a broker that refuses the rest."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from airflow.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st
from oscar_testbed.fakes.stomp import StompBroker

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, TransientError
from airflow_provider_oscar.hooks.stomp.client import StompSettings, subscribe
from airflow_provider_oscar.hooks.stomp.frames import LONGEST_FRAME, Frame, FrameParser

TOPIC = "/topic/rucio.events"
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
# Line ends of other alphabets (U+2028, NEL) are ordinary characters in a header.
values = names | st.sampled_from(["a:b", "\\n", "a\nb", "\r", "\u2028", "\x85", "\x0c"])


@given(
    headers=st.dictionaries(names | values, values, max_size=5),
    body=st.binary(max_size=200),
    cuts=st.lists(st.integers(1, 40), max_size=20),
)
def test_a_frame_comes_back_whatever_it_holds_and_however_it_is_cut(headers, body, cuts):
    headers.pop("content-length", None)
    frame = Frame("MESSAGE", headers, body)
    data = b"\n\r\n" + frame.encode() + b"\n" + frame.encode()
    parser, found = FrameParser(), []
    for cut in [*cuts, len(data)]:
        found += parser.feed(data[:cut])
        data = data[cut:]
    length = {"content-length": str(len(body))} if body else {}
    assert found == [Frame("MESSAGE", {**headers, **length}, body)] * 2


def test_the_first_of_a_header_counts_and_lines_may_end_as_in_windows():
    (found,) = FrameParser().feed(b"MESSAGE\r\na:1\r\na:2\r\n\r\nbody\0")
    assert (found.headers, found.body) == ({"a": "1"}, b"body")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\0",
        b"MESSAGE\nno colon\n\n\0",
        b"MESSAGE\na:b\\t\n\n\0",
        b"MESSAGE\na:b\\\n\n\0",
        b"MESSAGE\ncontent-length:x\n\n\0",
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:1\n\nab\0",
        b"MESSAGE\ncontent-length:99999999999\n\n\0",
        b"MESSAGE\na:\xff\n\n\0",
    ],
)
def test_what_is_no_stomp_is_said_to_be_none(data):
    with pytest.raises(PermanentError, match="the broker"):
        list(FrameParser().feed(data))


def test_a_frame_without_end_is_not_kept():
    parser = FrameParser()
    assert not list(parser.feed(b"x" * LONGEST_FRAME))
    with pytest.raises(PermanentError, match="more than"):
        list(parser.feed(b"x"))


def test_a_header_with_a_line_end_never_becomes_another_one_when_we_connect():
    with pytest.raises(PermanentError, match="line end"):
        Frame("CONNECT", {"login": "a\npasscode:b"}).encode()


def test_a_password_with_a_line_end_is_not_shown():
    with pytest.raises(PermanentError, match="the header 'passcode' cannot be sent") as raised:
        Frame("CONNECT", {"login": "a", "passcode": "hush\n"}).encode()
    assert "hush" not in str(raised.value)


def read_settings(broker: StompBroker, **fields: object) -> StompSettings:
    given = {"login": broker.login, "password": broker.password, "port": broker.port, **fields}
    extra = json.dumps(given.pop("extra", {"use_ssl": False}))
    return StompSettings.from_connection(
        Connection(conn_id="bus", conn_type="generic", host="127.0.0.1", extra=extra, **given)
    )


async def test_messages_of_the_destination_arrive_and_no_others():
    with StompBroker() as broker:
        async with asyncio.timeout(120), aclosing(subscribe(read_settings(broker), None, TOPIC)) as frames:
            assert await anext(frames) is None  # subscribed
            broker.publish("/topic/other", b"no")
            broker.publish(TOPIC, b"a:\n\0b", event_type="close")
            frame = await anext(frames)
            assert frame is not None
            assert (frame.body, frame.headers["event_type"]) == (b"a:\n\0b", "close")
    assert broker.refusals == []


@pytest.mark.parametrize("fields", [{"password": "wrong"}, {"login": ""}])
async def test_a_wrong_login_is_an_error_of_the_connection(fields):
    with StompBroker() as broker, pytest.raises(DefinitionError, match="'bus'.*password is invalid.*check login"):
        await anext(subscribe(read_settings(broker, **fields), None, TOPIC))


async def test_a_destination_that_is_denied_is_an_error_of_the_connection():
    with StompBroker(denied=frozenset({TOPIC})) as broker, pytest.raises(DefinitionError, match="not authorized"):
        await anext(subscribe(read_settings(broker), None, TOPIC))


async def test_a_broker_that_goes_away_is_told():
    with StompBroker() as broker:
        frames = subscribe(read_settings(broker), None, TOPIC)
        assert await anext(frames) is None
        broker.disconnect()
        with pytest.raises(TransientError, match="'bus'"):
            await anext(frames)
    with pytest.raises(TransientError, match="cannot be reached"):
        await anext(subscribe(read_settings(broker), None, TOPIC))


async def test_a_server_that_accepts_and_never_answers_is_left_in_time():
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    connection = Connection(
        conn_id="bus", conn_type="generic", host="127.0.0.1", port=server.sockets[0].getsockname()[1],
        extra=json.dumps({"use_ssl": False, "connect_timeout": 0.2}),
    )  # fmt: skip
    with pytest.raises(TransientError, match="is silent"):
        await anext(subscribe(StompSettings.from_connection(connection), None, TOPIC))
    server.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": ""}, "expected the name of the broker"),
        ({"host": "a/b"}, "expected the name of the broker"),
        ({"host": "msg.example.org", "password": "p", "extra": {"use_ssl": False}}, "sent in clear"),
        ({"host": "msg.example.org", "extra": {"use_ssl": "no"}}, "true or false"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(fields, words):
    given = {**fields, "extra": json.dumps(fields.get("extra", {}))}
    with pytest.raises(DefinitionError, match=words):
        StompSettings.from_connection(Connection(conn_id="bus", conn_type="generic", **given))


def test_tls_is_spoken_unless_the_connection_says_otherwise():
    made = StompSettings.from_connection(
        Connection(conn_id="bus", conn_type="generic", host="ssl://msg.example.org", password="geheim")
    )
    assert (made.use_ssl, made.port, made.host) == (True, 61614, "msg.example.org")
    assert made.context() is not None
    assert "geheim" not in repr(made)


@pytest.mark.parametrize("step", [1, 1000])
def test_a_nul_before_the_body_is_refused_in_pieces_as_in_one(step: int):
    data = b"MESSAGE\na\0b:c\n\n{}\0"
    parser = FrameParser()

    def read() -> None:
        for at in range(0, len(data), step):
            list(parser.feed(data[at : at + step]))

    with pytest.raises(PermanentError, match="does not speak STOMP"):
        read()
