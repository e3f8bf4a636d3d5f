# SPDX-License-Identifier: Apache-2.0
"""Listings as other servers write them, over a socket: each entry is read, or counted, or the page is refused."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_oscar.core.errors import AccessError, OscarProviderError, PermanentError, TransientError
from airflow_provider_oscar.core.notifications import Notification, NotificationFormat
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.multipart import delete_below
from airflow_provider_oscar.ingest.notifications import as_listed
from tests.support.handlers import QuietHandler, serving

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
WHEN = "2026-01-01T00:00:00.000Z"
END = "<IsTruncated>false</IsTruncated>"
ENCODED = f"{END}<EncodingType>url</EncodingType>"


def entry(key="a", when=WHEN, etag=f"&quot;{MD5}&quot;", size="1", more=""):
    fields = {"Key": key, "LastModified": when, "ETag": etag, "Size": size}
    told = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items() if text is not None)
    return f"<Contents>{told}{more}</Contents>"


def answer(
    inner, head=END, *, before="", name="ListBucketResult", ns=' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
):
    return f'<?xml version="1.0" encoding="UTF-8"?>{before}<{name}{ns}>{head}{inner}</{name}>'


@pytest.fixture(scope="module")
def server():
    """A server of listings: ``pages`` answers a continuation token with a body."""

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            query = parse_qs(urlsplit(self.path).query)
            asked = [query.get("continuation-token", [""])[0], query.get("prefix", [""])[0]]
            pages = type(self).pages
            told = pages(*asked[: pages.__code__.co_argcount - len(pages.__defaults__ or ())])
            body = told if isinstance(told, bytes) else told.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        found = 200

        def do_HEAD(self):
            self.send_response(self.found)
            for name, value in self.head.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

    with serving(Handler) as url:
        Handler.url = url
        yield Handler


@pytest.fixture
def hook(server, monkeypatch):
    extra = {"endpoint_url": server.url}
    fields = {"conn_type": "oscar_s3", "login": "AK", "password": "SK", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(fields))
    return OscarS3Hook("odd")


READ = {
    "plain": (answer(entry()), "a", 1, MD5),
    "weak entity tag": (answer(entry(etag="W/&quot;abc&quot;")), "a", 1, "abc"),
    "weak MD5 in capitals": (answer(entry(etag=f"W/&quot;{MD5.upper()}&quot;")), "a", 1, MD5),
    "quotes as they are": (answer(entry(etag='"abc"')), "a", 1, "abc"),
    "no quotes": (answer(entry(etag="abc")), "a", 1, "abc"),
    "no entity tag": (answer(entry(etag=None)), "a", 1, ""),
    "no size": (answer(entry(size=None)), "a", None, MD5),
    "a size with blanks": (answer(entry(size=" 1\n")), "a", 1, MD5),
    "a size beyond all numbers": (answer(entry(size="9" * 23)), "a", None, MD5),
    "a size below zero": (answer(entry(size="-1")), "a", None, MD5),
    "a size in other digits": (answer(entry(size="\u0661")), "a", None, MD5),
    "a comment in a key": (answer(entry("a<!-- c -->b")), "ab", 1, MD5),
    "CDATA": (answer(entry("<![CDATA[a&b<c]]>")), "a&b<c", 1, MD5),
    "entities": (answer(entry("a&amp;b&lt;&#x41;")), "a&b<A", 1, MD5),
    "a comment before the root": (answer(entry(), before="<!-- made by hand -->"), "a", 1, MD5),
    "no name space": (answer(entry(), ns=""), "a", 1, MD5),
    "owner and class": (
        answer(entry(more="<Owner><ID>x</ID></Owner><StorageClass>GLACIER</StorageClass>")),
        "a",
        1,
        MD5,
    ),
    "blanks around a key": (answer(entry(" a ")), " a ", 1, MD5),
    "a line break in a key": (answer(entry("a&#13;&#10;b")), "a\r\nb", 1, MD5),
    "encoded": (answer(entry("a%2Fb+c%01"), ENCODED), "a/b c\x01", 1, MD5),
    "encoded wrongly": (answer(entry("a%zzb%"), ENCODED), "a%zzb%", 1, MD5),
    "encoding that is not told": (answer(entry("a%2Fb+c")), "a%2Fb+c", 1, MD5),
    "no word on more": (answer(entry(), ""), "a", 1, MD5),
    "UTF-16": (answer(entry("ü")).replace("UTF-8", "UTF-16").encode("utf-16"), "ü", 1, MD5),
    "ISO 8859-1": (answer(entry("ü")).replace("UTF-8", "ISO-8859-1").encode("latin-1"), "ü", 1, MD5),
    "a byte order mark": (b"\xef\xbb\xbf" + answer(entry()).encode(), "a", 1, MD5),
}


@pytest.mark.parametrize(("body", "key", "size", "etag"), READ.values(), ids=READ)
def test_an_odd_entry_is_read(server, hook, body, key, size, etag):
    server.pages = lambda token: body
    page = hook.list_page("b")
    assert [(each.key, each.size, each.etag) for each in page.events] == [(key, size, etag)]
    assert (page.skipped, page.next_token) == (0, "")


COUNTED = {
    "no time": answer(entry(when=None)),
    "an empty time": answer(entry(when="")),
    "Go's zero time": answer(entry(when="0001-01-01T00:00:00Z")),
    "no number": answer(entry(when="NaN")),
    "no key": answer(entry("")),
    "elements in small letters": answer(entry().lower().replace("&quot;", "")),
    "elements in capitals": answer(entry(etag="x").upper()),
    "entries within an entry": answer(f"<Contents>{entry()}</Contents>"),
    "entries of another name": answer(entry().replace("Contents", "Content")),
    "fewer than it says": answer("", f"{END}<KeyCount>1</KeyCount>"),
}


@pytest.mark.parametrize("body", COUNTED.values(), ids=COUNTED)
def test_an_entry_that_cannot_be_read_is_counted(server, hook, body):
    server.pages = lambda token: body
    page = hook.list_page("b")
    assert page.events == []
    assert page.skipped == 1


REFUSED = {
    "more, and no token": (answer(entry(), "<IsTruncated>true</IsTruncated>"), PermanentError),
    "more, and a marker": (
        answer(entry(), "<IsTruncated>TRUE</IsTruncated><NextMarker>a</NextMarker>"),
        PermanentError,
    ),
    "a second document": (answer(entry()) + answer(entry("b")), TransientError),
    "cut": (answer(entry())[:-20], TransientError),
    "nothing": ("", TransientError),
    "JSON": ('{"Contents": []}', TransientError),
    "an error with status 200": ('<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>', TransientError),
    "a document type": (answer(entry(), before="<!DOCTYPE x>"), PermanentError),
    "a character that XML has not": (answer(entry("a&#1;b")), TransientError),
}


@pytest.mark.parametrize(("body", "kind"), REFUSED.values(), ids=REFUSED)
def test_a_page_that_cannot_be_believed_is_refused(server, hook, body, kind, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.pages = lambda token: body
    with pytest.raises(OscarProviderError) as caught:
        hook.list_page("b")
    assert isinstance(caught.value, kind)
    assert "'odd'" in str(caught.value)


def test_keys_that_pages_repeat_are_all_there_and_a_token_that_comes_again_ends_it(server, hook):
    def more(there_is, token):
        known = f"<IsTruncated>{str(there_is).lower()}</IsTruncated>"
        return f"{known}<NextContinuationToken>{token}</NextContinuationToken>"

    def page(token):
        number = int(token or 0)
        return answer(entry(f"k{number}") + entry(f"k{number + 1}"), more(number < 3, number + 1))

    server.pages = page
    assert {each.key for listed in hook.list_pages("b") for each in listed.events} == {f"k{n}" for n in range(5)}
    server.pages = lambda token: answer(entry(), more(True, "same"))
    with pytest.raises(TransientError, match="same continuation token twice"):
        list(hook.list_pages("b"))


TAGGED = {"ETag": f'"{MD5}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Content-Length": "1"}
DIFFERENT = {
    "as the listing": {},
    "a second later, by rounding": {"Last-Modified": "Thu, 01 Jan 2026 00:00:01 GMT"},
    "no time": {"Last-Modified": None},
    "1970": {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"},
    "the time of the answer": {"Last-Modified": "Sun, 29 Nov 2026 10:00:00 GMT"},
    "compressed by a web server": {"ETag": f'"{MD5}-gzip"'},
    "compressed by another": {"ETag": f'"{MD5};br"'},
    "weak": {"ETag": f'W/"{MD5}"'},
    "in capitals": {"ETag": f'"{MD5.upper()}"'},
    "without quotes": {"ETag": MD5},
    "no tag, which the notification has": {"ETag": None},
    "a version id that listings do not tell": {"x-amz-version-id": "v1"},
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_an_object_that_is_looked_at_is_the_one_that_is_listed(server, hook, change):
    server.pages = lambda token: answer(entry(when="2026-01-01T00:00:00.999Z"))
    server.head = {**TAGGED, **change}
    told = Notification(source_format=NotificationFormat.PLAIN, container="b", key="a", etag=MD5)
    (listed,) = hook.list_page("b").events
    looked_at = as_listed(hook.head("b", "a"), told)
    assert looked_at.id == listed.id
    assert looked_at.partition_key == listed.partition_key


@pytest.mark.parametrize("change", [{"ETag": f'"{"0" * 32}"'}, {"Content-Length": "2"}])
def test_another_content_is_another_version(server, hook, change):
    server.pages = lambda token: answer(entry())
    server.head = {**TAGGED, **change}
    (listed,) = hook.list_page("b").events
    told = Notification(source_format=NotificationFormat.PLAIN, container="b", key="a")
    assert as_listed(hook.head("b", "a"), told).id != listed.id


def test_a_time_that_is_another_at_each_listing_makes_no_other_version(server, hook):
    server.pages = lambda token: answer(entry(when="2026-01-01T00:00:00Z"))
    (first,) = hook.list_page("b").events
    server.pages = lambda token: answer(entry(when="2026-11-29T10:00:00Z"))
    (second,) = hook.list_page("b").events
    assert first.id == second.id
    assert first.modified != second.modified


def test_an_object_is_absent_if_the_listing_does_not_show_it_either(server, hook, monkeypatch):
    """A 404 without a body is everybody's."""
    monkeypatch.setattr(server, "found", 404)
    monkeypatch.setattr(server, "head", {}, raising=False)
    for inner in ("", entry("k-2"), entry("k/")):
        server.pages = lambda token, inner=inner: answer(inner)
        assert hook.head("b", "k") is None
    server.pages = lambda token: answer(entry("k"))
    with pytest.raises(TransientError, match="was not there and is listed"):
        hook.head("b", "k")
    server.pages = lambda token: "<html>404 page not found</html>"
    with pytest.raises(TransientError):
        hook.head("b", "k")


@pytest.mark.parametrize("of_store", ["x-amz-request-id", "x-goog-hash"])
def test_an_object_that_is_a_page_is_told_from_a_page_by_the_stores_own_headers(server, hook, monkeypatch, of_store):
    page = {**TAGGED, "Content-Type": "text/html"}
    monkeypatch.setattr(server, "head", {**page, of_store: "1"}, raising=False)
    assert hook.head("b", "a.html").size == 1
    monkeypatch.setattr(server, "head", page)
    with pytest.raises(TransientError, match="is not an S3 store"):
        hook.head("b", "a.html")


@pytest.mark.parametrize("by_boto", [False, True], ids=["our reader", "boto3"])
def test_a_store_that_does_not_know_prefixes_is_not_used(server, hook, by_boto):
    """Else a watcher reported the whole bucket, and the parts of a large file were removed with all that is there."""
    if by_boto:
        hook._boto_only.set()
    server.pages = lambda token: answer(entry("in/a") + entry("other"))
    assert len(hook.list_page("b").events) == 2
    with pytest.raises(PermanentError, match="begins with 'in/', the store shows 'other'"):
        hook.list_page("b", "in/")
    with pytest.raises(PermanentError):
        delete_below(hook, "b", "results/job/.airflow-oscar-parts/")


def test_what_decoding_makes_of_a_prefix_is_listed_below_the_prefix_alone(server, hook):
    """Ceph writes common prefixes as they are and says that it encodes."""
    asked = []

    def pages(token, prefix):
        asked.append(prefix)
        folded = "<CommonPrefixes><Prefix>in+1/sub/</Prefix></CommonPrefixes>"
        return answer(folded if prefix == "in+1/" else entry("in%2B1%2Fsub%2Fa"), ENCODED)

    server.pages = pages
    found = [each.key for page in hook.list_fan_out("b", "in+1/") for each in page.events]
    assert (asked, found) == (["in+1/", "in+1/sub/"], ["in+1/sub/a"])


def test_a_file_that_may_not_be_written_is_no_matter_for_a_retry(hook, tmp_path):
    """boto3 wraps what the store said of an upload."""
    (tmp_path / "f").write_bytes(b"content")
    with pytest.raises(AccessError, match=r"cannot write 'k' in bucket 'b': .*403 AccessDenied: 'no'.*s3:PutObject"):
        hook.put_file("b", "k", tmp_path / "f")
