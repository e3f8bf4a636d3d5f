# SPDX-License-Identifier: Apache-2.0
"""What dCache sends, read in pieces and from strangers: PROPFIND answers, server-sent events, dates, checksums."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from unicodedata import normalize
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.hooks.dcache.entries import EPOCH, NamespaceEntry, clean_path, encoded, join
from airflow_provider_oscar.hooks.dcache.events import InotifyMessage, SystemMessage, read_message, subscription_id
from airflow_provider_oscar.hooks.dcache.propfind import PropfindParser, parse_checksums, parse_http_date
from airflow_provider_oscar.hooks.dcache.rest import entry_from_json
from airflow_provider_oscar.hooks.http.sse import SseEvent, SseParser

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:" xmlns:dc="http://www.dcache.org/2013/webdav">'
)


def response(href, *, size=3, directory=False, status="HTTP/1.1 200 OK", etag='"e"', extra=""):
    kind = "<D:resourcetype><D:collection/></D:resourcetype>" if directory else "<D:resourcetype/>"
    length = "" if directory or size is None else f"<D:getcontentlength>{size}</D:getcontentlength>"
    return (
        f"<D:response><D:href>{escape(href)}</D:href><D:propstat><D:prop>{kind}{length}"
        f"<D:getlastmodified>Sun, 22 Nov 2026 09:54:36 GMT</D:getlastmodified><D:getetag>{escape(etag)}</D:getetag>"
        f"{extra}</D:prop><D:status>{status}</D:status></D:propstat>"
        "<D:propstat><D:prop><D:getcontentlength>999</D:getcontentlength></D:prop>"
        "<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>"
    )


def listing(*responses):
    return (HEAD + "".join(responses) + "</D:multistatus>").encode()


def parse(data, cuts=(), *, base="/dav", **limits):
    parser = PropfindParser(base, what="listing of '/in'", **limits)
    found, last = [], 0
    for cut in [*sorted(cuts), len(data)]:
        parser.feed(data[last:cut])
        found.extend(parser.take())
        last = cut
    parser.close()
    found.extend(parser.take())
    return found, parser.skipped


def usable(name):
    return "/" not in name and "\0" not in name and name not in (".", "..")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(usable)


@given(st.lists(names, max_size=6), st.lists(st.integers(0, 5000), max_size=6))
def test_any_name_survives_in_whatever_pieces_the_answer_arrives(given_names, cuts):
    data = listing(*(response(f"/dav/in/{quote(name, safe='')}") for name in given_names))
    found, skipped = parse(data, cuts)
    assert [entry.path for entry in found] == [f"/in/{name}" for name in given_names]
    assert skipped == 0


@given(st.binary(max_size=300))
def test_garbage_ends_in_an_error_of_ours(data):
    with pytest.raises(OscarProviderError):
        parse(data)


@given(st.integers(1, 2000))
def test_a_listing_cut_short_is_never_believed(cut):
    whole = listing(response("/dav/in/", directory=True), response("/dav/in/a"))
    with pytest.raises(OscarProviderError):
        parse(whole[: min(cut, len(whole) - 1)])


def test_only_the_properties_under_200_count():
    (entry,), _ = parse(listing(response("/dav/in/a", size=3)))
    assert entry.size == 3


def test_a_file_without_length_has_no_size():
    (entry,), _ = parse(listing(response("/dav/in/a", size=None)))
    assert entry.size is None
    assert not entry.complete


@pytest.mark.parametrize(
    "href",
    [
        "https://other.example/dav/in/%c3%a9+x",
        "/dav/in/%C3%A9%2Bx",
        "/dav/in/%c3%a9%2bx",
        "http://h:1/dav/in/é+x",
    ],
    ids=["absolute", "upper case", "lower case", "raw"],
)
def test_hrefs_are_read_alike_and_stay_below_the_configured_endpoint(href):
    (entry,), _ = parse(listing(response(href)))
    assert entry.path == "/in/é+x"


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("/dav//in///a", "/in/a"),
        ("https://h:1/dav/in/what?#1", "/in/what?#1"),
        ("http://h/dav/in/a;v=1", "/in/a;v=1"),
        ("/dav/in/100%", "/in/100%"),
        ("\n  /dav/in/a\n", "/in/a"),
    ],
)
def test_hrefs_that_servers_write_carelessly_are_read(href, path):
    ((entry,), skipped) = parse(listing(response(href)))
    assert (entry.path, skipped) == (path, 0)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_server_may_spell_the_endpoint_with_other_forms_of_the_same_letters(form):
    name = normalize("NFD", "\u00e9.h5")
    href = quote(normalize(form, "/caf\u00e9/")) + quote(name)
    ((entry,), skipped) = parse(listing(response(href)), base=normalize("NFC", "/caf\u00e9"))
    assert (entry.path, skipped) == (f"/{name}", 0)


@pytest.mark.parametrize(
    ("body", "skipped"),
    [
        (response("/dav/x").replace("200 OK", "403 Forbidden"), 1),
        (response("/dav/x").replace("200 OK", "404 Not Found"), 1),
        ("<D:response><D:href>/dav/x</D:href><D:status>HTTP/1.1 200 OK</D:status></D:response>", 1),
        ("<D:response><D:href>/dav/x</D:href></D:response>", 1),
        ("<D:response><D:href>/dav/x</D:href><D:href>/dav/y</D:href><D:status>HTTP/1.1 200 OK</D:status>"
         "</D:response>", 2),
        ("<D:response><D:href>/dav/x</D:href><D:status>HTTP/1.1 423 Locked</D:status></D:response>", 1),
    ],
    ids=["all refused", "none there", "bare", "nothing", "many names", "locked"],
)  # fmt: skip
def test_an_entry_of_which_nothing_is_told_is_no_file_and_is_counted(body, skipped):
    assert parse(listing(body), plain=True) == ([], skipped)


@pytest.mark.parametrize("status", ["HTTP/1.1 200 OK", "HTTP/2 200", "200 OK", "HTTP/1.1 200", ""])
def test_a_status_is_read_in_the_words_that_servers_use(status):
    ((entry,), _) = parse(listing(response("/dav/x", status=status)))
    assert entry.size == 3


def test_a_directory_may_be_known_by_its_slash_alone():
    ((entry,), _) = parse(listing(response("/dav/x/", size=None)), plain=True)
    assert entry.is_directory
    assert not entry.complete


HOSTILE_HREFS = {
    "slash": "/dav/in/..%2f..%2fetc",
    "dots": "/dav/../etc",
    "encoded dots": "/dav/in/%2e%2e/x",
    "neighbour": "/davx/in/a",
    "elsewhere": "/elsewhere",
    "nul": "/dav/in/%00",
    "no utf-8": "/dav/in/%ff",
    "broken url": "http://[",
    "empty": "",
}


@pytest.mark.parametrize("href", HOSTILE_HREFS.values(), ids=HOSTILE_HREFS)
def test_hostile_hrefs_are_skipped_and_counted(href):
    found, skipped = parse(listing(response(href), response("/dav/in/good")))
    assert [entry.path for entry in found] == ["/in/good"]
    assert skipped == 1


def test_a_doctype_is_refused():
    data = b'<?xml version="1.0"?><!DOCTYPE D [<!ENTITY a "a">]>' + listing(response("/dav/a"))[38:]
    with pytest.raises(PermanentError, match="DOCTYPE"):
        parse(data)


def test_another_document_is_not_an_empty_directory():
    with pytest.raises(PermanentError, match="multistatus"):
        parse(b"<html/>")


def test_bounds_are_kept():
    data = listing(*(response(f"/dav/{n}") for n in range(5)))
    with pytest.raises(PermanentError, match="more than 3 entries"):
        parse(data, max_entries=3)
    with pytest.raises(PermanentError, match="exceeds 1000 bytes"):
        parse(data, max_bytes=1000)


@pytest.mark.parametrize("around", ["", "<D:response>"], ids=["below the root", "in an entry"])
@pytest.mark.parametrize("end", ["", "</a>"], ids=["open", "closed"])
def test_deep_nesting_is_refused(around, end):
    with pytest.raises(PermanentError, match="nested deeper"):
        parse(f"{HEAD}{around}{'<a>' * 1000}{end * 1000}".encode())


def test_an_entry_of_endless_elements_is_refused_before_they_fill_the_memory():
    with pytest.raises(PermanentError, match="XML elements in one entry"):
        parse(HEAD.encode() + b"<D:response>" + b"<a/>" * 100_000)


def test_an_unclosed_document_of_the_right_start_is_truncated():
    with pytest.raises(TransientError, match="cut short|ended before"):
        parse(listing(response("/dav/a"))[:-3])


def test_checksums_become_hex():
    assert parse_checksums("md5=1B2M2Y8AsgTpgAmY7PhCfg==,adler32=5AE07809,sha=,x,adler32=nothex") == (
        ("md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("adler32", "5ae07809"),
    )
    assert parse_checksums("adler32=1") == (("adler32", "00000001"),)


@given(st.text(max_size=40))
def test_no_text_breaks_the_reader_of_dates_and_checksums(text):
    parse_checksums(text)
    assert parse_http_date(text) is None or parse_http_date(text).tzinfo is not None


@pytest.mark.parametrize(
    "text",
    ["Sun, 22 Nov 2026 09:54:36 GMT", "Sun, 22 Nov 2026 10:54:36 +0100", "2026-11-22T09:54:36Z"],
    ids=["http", "zone", "iso"],
)
def test_dates_are_read_in_the_forms_that_servers_use(text):
    assert parse_http_date(text) == datetime(2026, 11, 22, 9, 54, 36, tzinfo=UTC)


@pytest.mark.parametrize("path", ["in", "/in/../x", "/./x", "/a\0b", ""], ids=repr)
def test_paths_that_could_leave_the_root_are_refused(path):
    with pytest.raises(DefinitionError):
        clean_path(path)


def test_a_key_cannot_leave_its_directory():
    with pytest.raises(BadInputError):
        join("/in", "../out")


def test_paths_are_encoded_by_segment():
    assert encoded("/a b/ü?#%/x") == "/a%20b/%C3%BC%3F%23%25/x"


# Server-sent events


def sse(data, cuts=(), **limits):
    parser = SseParser(**limits)
    events, last = [], 0
    for cut in [*sorted(cuts), len(data)]:
        events.extend(parser.feed(data[last:cut]))
        last = cut
    return events, parser.dropped


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=10)
events = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3), st.one_of(st.none(), texts)), max_size=4)


@given(events, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 300), max_size=8))
def test_events_are_the_same_in_whatever_pieces_they_arrive(sent, end, cuts):
    text = ": comment" + end
    for name, lines, identity in sent:
        text += f"event: {name}{end}" + "".join(f"data: {line}{end}" for line in lines)
        text += (f"id: {identity}{end}" if identity is not None else "") + end
    found, dropped = sse(text.encode(), cuts)
    assert found == [SseEvent(name or "message", "\n".join(lines), identity) for name, lines, identity in sent]
    assert dropped == 0


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_give_the_same_events_in_one_piece_and_in_many(data, cuts):
    assert sse(data, cuts) == sse(data)


def test_an_event_that_the_end_of_the_stream_cuts_off_is_not_given():
    assert sse(b"data: a\n\ndata: b\n") == ([SseEvent("message", "a", None)], 0)


def test_a_line_of_a_megabyte_is_dropped_and_counted_and_the_next_event_is_read():
    data = b"id: 1\ndata: " + b"x" * 1_000_000 + b"\n\nid: 2\ndata: ok\n\n"
    for cuts in ([], range(0, len(data), 4096)):
        assert sse(data, cuts, line_limit=1000) == ([SseEvent("message", "ok", "2")], 1)


def test_an_event_of_endless_lines_is_dropped():
    assert sse(b"data: xxxxxxxxx\n" * 1000 + b"\ndata: ok\n\n", event_limit=1000) == (
        [SseEvent("message", "ok", None)],
        1,
    )


def test_memory_stays_bounded_while_a_line_never_ends():
    parser = SseParser(line_limit=1000)
    for _ in range(1000):
        parser.feed(b"x" * 1000)
    assert len(parser._buffer) <= 2000


def inotify(**fields):
    return SseEvent("inotify", json.dumps(fields), "7")


def test_an_inotify_event_is_read():
    message = read_message(
        inotify(event={"name": "f.h5", "mask": ["IN_CLOSE_WRITE"]}, subscription="https://other/api/v1/x/AB%2Fc+d==")
    )
    assert message == InotifyMessage("AB_c-d", "f.h5", frozenset({"IN_CLOSE_WRITE"}))


def test_a_word_of_the_channel_is_read():
    assert read_message(SseEvent("SYSTEM", '{"type":"EVENT_LOSS"}', None)) == SystemMessage("EVENT_LOSS")


@given(st.text(max_size=30), st.text(max_size=60))
def test_no_event_breaks_the_reader(kind, data):
    read_message(SseEvent(kind, data, None))
    read_message(SseEvent("inotify", data, None))
    read_message(SseEvent("SYSTEM", data, None))


@pytest.mark.parametrize("url", ["AB_c-d", "/x/AB_c-d", "https://h/AB%2Fc%2Bd", "AB%2Fc+d=="], ids=repr)
def test_both_alphabets_of_subscription_ids_compare_equal(url):
    assert subscription_id(url) == "AB_c-d"


# Name-space answers


def test_a_file_of_the_rest_frontend_is_read():
    body = {
        "fileType": "REGULAR", "pnfsId": "0000A", "size": 5, "mtime": 1795341276000, "fileLocality": "ONLINE",
        "checksums": [
            {"type": "ADLER32", "value": "5AE07809"}, {"type": "NEW", "value": "1"},
            {"type": "MD5_TYPE", "value": None}, {"type": "SHA256", "value": "not yet"},  # else no job could be made
        ],
    }  # fmt: skip
    entry = entry_from_json(body, "/in/a")
    assert entry.complete
    assert entry.etag == "0000A"
    assert entry.modified == datetime.fromtimestamp(1795341276, UTC)
    assert entry.checksums == (("adler32", "5ae07809"), ("new", "1"))


@pytest.mark.parametrize(
    ("fields", "complete"),
    [
        ({"size": 5, "fileLocality": "ONLINE"}, True),
        ({"size": 5, "fileLocality": "ONLINE_AND_NEARLINE"}, True),
        ({"size": 0, "fileLocality": "ONLINE"}, True),
        ({"fileLocality": "NONE"}, False),
        ({"size": 5, "fileLocality": "NEARLINE"}, False),
        ({"size": 5, "fileLocality": "QUANTUM"}, False),
        ({"size": "5", "mtime": "x", "checksums": 7}, False),
    ],
    ids=["online", "both", "empty file", "uploading", "tape", "unknown word", "nonsense"],
)
def test_a_file_is_complete_when_it_has_size_and_is_online(fields, complete):
    assert entry_from_json({"fileType": "REGULAR", **fields}, "/a").complete is complete


def test_an_entry_knows_its_event():
    entry = NamespaceEntry("/in/sub/a", False, 1, EPOCH, "e")
    event = entry.to_event(conn_id="c", container="/in")
    assert (event.container, event.key, event.uri) == ("/in", "sub/a", "dcache://c/in/sub/a")
