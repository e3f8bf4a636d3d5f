# SPDX-License-Identifier: Apache-2.0
"""The S3 hook without a store: the listing parser, the connection, the errors, the capabilities.

Keeps row T3 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

import pytest
from airflow.sdk import Connection
from botocore import exceptions as boto
from botocore.loaders import JSONFileLoader
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import (
    AccessError,
    BadInputError,
    DefinitionError,
    OscarProviderError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType, normalised_etag
from airflow_provider_oscar.hooks.s3 import listing
from airflow_provider_oscar.hooks.s3.errors import s3_error
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.hooks.s3.listing import ListingPage, Progress, S3ListParser
from airflow_provider_oscar.hooks.s3.settings import S3Settings
from tests.support.handlers import QuietHandler, serving

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def make_event(key, size, etag, modified):
    return ObjectEvent(StoreType.S3, "c", "bucket", key, size, etag, "", modified)


def document(keys, *, encoded=True, token="", prefixes=()):
    contents = "".join(
        f"<Contents><Key>{escape(quote(key) if encoded else key)}</Key>"
        f"<LastModified>2026-11-22T09:00:0{index % 10}.123Z</LastModified><ETag>&quot;e{index}&quot;</ETag>"
        f"<Size>{index}</Size><Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
        for index, key in enumerate(keys)
    )
    folds = "".join(f"<CommonPrefixes><Prefix>{escape(quote(text))}</Prefix></CommonPrefixes>" for text in prefixes)
    more = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(token)}</NextContinuationToken>"
        if token
        else ""
    )
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bucket</Name><Prefix></Prefix>{more}{contents}{folds}{encoding}</ListBucketResult>"
    ).encode()


def parse(data: bytes, cuts=(), **limits) -> ListingPage:
    parser = S3ListParser(make_event, what="listing of 'bucket'", **limits)
    last = 0
    for cut in [*sorted(cuts), len(data)]:
        parser.feed(data[last:cut])
        last = cut
    parser.close()
    return parser.page(NOW)


keys = st.text(min_size=1, max_size=20).filter(lambda text: not any(0xD800 <= ord(char) <= 0xDFFF for char in text))


@given(st.lists(keys, max_size=8), st.lists(st.integers(0, 4000), max_size=6))
def test_any_key_survives_in_whatever_pieces_the_answer_arrives(names, cuts):
    page = parse(document(names, prefixes=names, token="t"), cuts)
    assert [event.key for event in page.events] == names
    assert [event.size for event in page.events] == list(range(len(names)))
    assert page.common_prefixes == names
    assert page.next_token == "t"


@given(st.binary(max_size=300))
def test_garbage_ends_in_an_error_of_ours(data):
    with pytest.raises(OscarProviderError):
        parse(data)


@given(st.integers(1, 900))
def test_a_listing_cut_short_is_never_believed(cut):
    whole = document(["a", "b", "c"])
    with pytest.raises(OscarProviderError):
        parse(whole[: min(cut, len(whole) - 1)])


def test_keys_stay_raw_when_the_store_ignored_the_encoding():
    assert [event.key for event in parse(document(["a+b", "50%25"], encoded=False)).events] == ["a+b", "50%25"]


def test_blanks_that_the_store_wrote_as_plus_are_decoded():
    raw = document(["x"]).replace(b"<Key>x<", b"<Key>a+b%2Bc<")
    assert parse(raw).events[0].key == "a b+c"


def test_a_doctype_is_refused():
    data = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>'
    with pytest.raises(PermanentError, match="DOCTYPE"):
        parse(data)


def test_too_many_bytes_are_refused():
    with pytest.raises(PermanentError, match="exceeds 100 bytes"):
        parse(document(["a" * 200]), max_bytes=100)


def test_too_many_entries_are_refused():
    with pytest.raises(PermanentError, match="more than 2 entries"):
        parse(document(["a", "b", "c"]), max_entries=2)


def test_a_page_of_html_is_not_an_empty_listing():
    with pytest.raises(TransientError, match="not a ListBucketResult"):
        parse(b"<html><body/></html>")


@pytest.mark.parametrize("boto_only", [False, True], ids=["our reader", "boto3"])
@pytest.mark.parametrize(
    "body",
    [
        b"<html><body/></html>",
        b"<Error><Code>Odd</Code><Message>m</Message></Error>",
        b"<Error><Code>InternalError</Code><Message>m</Message></Error>",
        b"",
        b"{}",
    ],
    ids=["html", "error", "internal error", "nothing", "json"],
)
def test_another_document_with_status_200_is_not_an_empty_listing(boto_only, body, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with plain_server(lambda path: (200, {"Content-Type": "application/xml"}, body)) as url:
        hook = OscarS3Hook("store", connection=connection(extra={"endpoint_url": url}))
        if boto_only:
            hook._boto_only.set()
        with pytest.raises((TransientError, PermanentError)):
            hook.list_page("bucket")
        hook.client.close()
        hook.close()


def test_a_listing_by_boto3_that_is_cut_without_a_token_is_not_complete():
    body = document(["a"], token="t").replace(b"<NextContinuationToken>t</NextContinuationToken>", b"")
    with plain_server(lambda path: (200, {"Content-Type": "application/xml"}, body)) as url:
        hook = OscarS3Hook("store", connection=connection(extra={"endpoint_url": url}))
        hook._boto_only.set()
        with pytest.raises(PermanentError, match="no continuation token"):
            hook.list_page("bucket")
        hook.client.close()
        hook.close()


def test_what_stands_in_an_owner_or_a_tag_says_nothing_of_the_object():
    inner = b"<Owner><ID>x</ID><Key>evil</Key><Contents/></Owner><Tags><Tag><Key>k</Key></Tag></Tags>"
    page = parse(document(["a", "b"]).replace(b"<Owner><ID>x</ID></Owner>", inner.replace(b"<Contents/>", b"")))
    assert [event.key for event in page.events] == ["a", "b"]


@pytest.mark.parametrize(
    ("told", "token"),
    [
        ("<IsTruncated>1</IsTruncated><NextContinuationToken>t</NextContinuationToken>", "t"),
        ("<IsTruncated> True </IsTruncated><NextContinuationToken>\nt\n</NextContinuationToken>", "t"),
        ("<NextContinuationToken>t</NextContinuationToken>", "t"),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>", ""),
        ("<IsTruncated>0</IsTruncated><NextContinuationToken>t</NextContinuationToken>", ""),
        ("", ""),
    ],
)
def test_a_listing_goes_on_where_the_store_says_so_in_whatever_words(told, token):
    raw = document(["a"]).replace(b"<Name>bucket</Name>", told.encode())
    assert parse(raw).next_token == token


@pytest.mark.parametrize(
    "entry",
    [
        b"<KeyCount>3</KeyCount>",
        b"<Version><Key>k</Key><LastModified>2026-11-22T09:00:00Z</LastModified></Version>",
        b"<Objects><Contents><Key>k</Key></Contents></Objects>",
    ],
    ids=["the store counts more", "another element", "a list around them"],
)
def test_entries_in_elements_of_another_name_are_counted_as_unread(entry):
    page = parse(document(["a", "b"]).replace(b"<Name>bucket</Name>", entry))
    assert page.skipped >= 1


def test_common_prefixes_in_one_element_are_all_there():
    raw = document([], prefixes=["a/", "b/"]).replace(b"</CommonPrefixes><CommonPrefixes>", b"")
    assert parse(raw).common_prefixes == ["a/", "b/"]


def test_a_key_that_is_not_utf_8_stays_what_it_is():
    raw = document(["x", "y"]).replace(b"<Key>x<", b"<Key>a%FF<").replace(b"<Key>y<", b"<Key>a%FE<")
    assert [event.key for event in parse(raw).events] == ["a\udcff", "a\udcfe"]


def shown(token, *keys, prefixes=()):
    events = [make_event(key, 1, "", datetime(2026, 1, 1, tzinfo=UTC)) for key in keys]
    return ListingPage(events, list(prefixes), token, None)


@given(lead=st.integers(0, 40), cycle=st.integers(1, 40))
def test_tokens_that_come_round_end_the_listing(lead, cycle):
    progress = Progress("the listing")
    tokens = [f"lead {number}" for number in range(lead)] + [f"cycle {number % cycle}" for number in range(400)]
    with pytest.raises(TransientError, match="same continuation token twice, so this listing has no end"):
        list(map(progress.take, map(shown, tokens)))


@given(lead=st.integers(0, 40), cycle=st.integers(1, 40))
def test_pages_that_come_round_under_new_tokens_end_the_listing(lead, cycle):
    progress = Progress("the listing")
    names = [f"lead {number}" for number in range(lead)] + [f"cycle {number % cycle}" for number in range(400)]
    pages = [shown(str(number), name) for number, name in enumerate(names)]
    with pytest.raises(TransientError, match="same page twice, under another continuation token, so this listing"):
        list(map(progress.take, pages))


@pytest.mark.parametrize("prefixes", [(), ("folded/",)])
def test_pages_without_anything_new_end_the_listing_when_they_are_many(prefixes, monkeypatch):
    monkeypatch.setattr(listing, "IDLE_PAGES", 20)
    progress = Progress("the listing")
    for number in range(20):
        progress.take(shown(f"a{number}", prefixes=prefixes))
    progress.take(shown("b", "there is something", prefixes=prefixes))
    many = [shown(f"c{number}", prefixes=prefixes) for number in range(21)]
    with pytest.raises(TransientError, match="21 pages in a row without anything new"):
        list(map(progress.take, many))


@given(st.integers(1, 2000), st.booleans())
def test_a_long_listing_has_its_end(pages, empty):
    progress = Progress("the listing")
    for number in range(pages):
        assert progress.take(shown(str(number), *([] if empty else [f"key {number}"]))) == str(number)
    assert progress.take(shown("", f"key {pages - 1}")) == ""


def test_an_entry_without_time_is_skipped_and_counted():
    page = parse(document(["a", "b"]).replace(b"2026-11-22T09:00:00.123Z", b"yesterday"))
    assert [event.key for event in page.events] == ["b"]
    assert page.skipped == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Wed, 26 Nov 2025 10:00:00 GMT", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("2025-11-26 10:00:00 UTC", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        (":2025-11-26T10:00:00.000Z", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("1764151200", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("1764151200000", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("1764151200000000000", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("Wednesday, 26-Nov-25 10:00:00 GMT", datetime(2025, 11, 26, 10, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (" 2025-11-26T10:00:00Z\n", datetime(2025, 11, 26, 10, tzinfo=UTC)),
    ],
    ids=["RFC 1123", "words", "leading colon", "seconds", "milliseconds", "nanoseconds", "RFC 850", "leap second",
         "blanks"],
)  # fmt: skip
def test_times_of_other_servers_are_read_as_boto3_reads_them(written, read):
    raw = document(["a"]).replace(b"2026-11-22T09:00:00.123Z", written.encode())
    page = parse(raw)
    assert [event.modified for event in page.events] == [read]
    assert page.skipped == 0


@pytest.mark.parametrize(
    "written", ["", "0001-01-01T00:00:00Z", "10:00", "2024", "9" * 400, "\u0663\u0663\u0663\u0663"]
)
def test_entry_without_a_usable_time_is_counted(written):
    raw = document(["a", "b"]).replace(b"2026-11-22T09:00:00.123Z", written.encode())
    page = parse(raw)
    assert [event.key for event in page.events] == ["b"]
    assert page.skipped == 1


def test_prefix_of_xml_names_does_not_hide_the_content():
    plain = document(["a", "b"], prefixes=["p/"], token="t").decode()
    prefixed = re.sub(r"<(/?)([A-Za-z])", r"<\1s3:\2", plain).replace("xmlns=", "xmlns:s3=")
    assert parse(prefixed.encode()) == parse(plain.encode())


def test_common_prefixes_that_may_not_be_encoded_are_kept_as_written_too():
    raw = document([], prefixes=["x"]).replace(b"<Prefix>x<", b"<Prefix>a+b%20c/<")
    page = parse(raw)
    assert page.common_prefixes == ["a b c/"]
    assert page.raw_prefixes == ["a+b%20c/"]


def test_endpoint_that_redirects_is_named_with_its_target():
    with plain_server(lambda path: (301, {"Location": f"https://store.example{path}"}, b"")) as url:
        hook = OscarS3Hook("store", connection=connection(extra={"endpoint_url": url}))
        for call in (
            lambda: hook.list_page("bucket"),
            lambda: hook.head("bucket", "key"),
            lambda: hook.put_bytes("bucket", "key", b"x"),
            lambda: hook.read_bytes("s3://bucket/key", 10),
        ):
            with pytest.raises(DefinitionError, match=r"redirects to 'https://store.example'.*endpoint_url"):
                call()
        connected, words = hook.test_connection()
        hook.close()
    assert not connected
    assert "redirects to" in words


@contextmanager
def plain_server(answer):
    """Answers every request with (status, headers, body) of a function of its path."""

    class Handler(QuietHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = answer  # noqa: N815  # the names of http.server

    with serving(Handler) as url:
        yield url


def test_more_without_a_token_is_an_error():
    raw = document(["a"], token="t").replace(b"<NextContinuationToken>t</NextContinuationToken>", b"")
    with pytest.raises(PermanentError, match="no continuation token"):
        parse(raw)


ETAGS = {
    "quoted": '"abc"', "bare": "abc", "weak": 'W/"abc"', "weak too": 'w/"abc"', "blanks": ' "abc" ',
    "Apache": '"abc-gzip"', "Jetty": '"abc--gzip"', "brotli": 'W/"abc-br"', "semicolon": '"abc;gzip"',
}  # fmt: skip


@pytest.mark.parametrize("written", ETAGS.values(), ids=ETAGS)
def test_entity_tags_have_one_form(written):
    assert normalised_etag(written) == "abc"


def connection(**fields):
    extra = fields.pop("extra", {})
    base = {"conn_id": "store", "conn_type": "oscar_s3", "login": "key", "password": "secret"}
    return Connection(**base | fields, extra=json.dumps(extra))


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"extra": {"endpoint_url": "http://minio:9000/"}}, "http://minio:9000"),
        ({"host": "https://minio.example.org"}, "https://minio.example.org"),
        ({"host": "minio.example.org", "port": 9000}, "https://minio.example.org:9000"),
        ({"host": "minio", "schema": "http", "port": 9000}, "http://minio:9000"),
        ({}, ""),
        ({"conn_type": "aws", "host": "ignored"}, ""),
    ],
    ids=["extra", "host with scheme", "host and port", "schema", "amazon", "aws connection"],
)
def test_the_endpoint_is_read_from_the_connection(fields, endpoint):
    assert S3Settings.from_connection(connection(**fields)).endpoint_url == endpoint


def test_an_endpoint_of_another_scheme_names_the_connection():
    with pytest.raises(DefinitionError, match="'store'.*endpoint"):
        S3Settings.from_connection(connection(extra={"endpoint_url": "ftp://x"}))


def hook(**fields) -> OscarS3Hook:
    extra = {"endpoint_url": "http://127.0.0.1:9"} | fields.pop("extra", {})
    return OscarS3Hook("store", connection=connection(extra=extra, **fields))


def test_a_version_gets_a_presigned_url_for_the_asked_time():
    event = ObjectEvent(StoreType.S3, "store", "bucket", "in/a b.h5", 3, "e", "v1", NOW)
    stage_in = hook().stage_in(event, lifetime=timedelta(hours=2))
    query = parse_qs(urlsplit(stage_in.url).query)
    assert query["X-Amz-Expires"] == ["7200"]
    assert query["versionId"] == ["v1"]
    assert urlsplit(stage_in.url).path == "/bucket/in/a%20b.h5"
    assert "secret" not in stage_in.url
    assert stage_in.name == "a_b.h5"


@pytest.mark.parametrize("days", [-1, 0, 8], ids=["past", "none", "too long"])
def test_a_lifetime_that_s3_cannot_sign_is_refused(days):
    event = ObjectEvent(StoreType.S3, "store", "bucket", "a", 3, "e", "v1", NOW)
    with pytest.raises(DefinitionError, match="7 days"):
        hook().stage_in(event, lifetime=timedelta(days=days))


def test_the_upload_policy_binds_prefix_and_size():
    import base64

    post = hook().stage_out("s3://bucket/out/", submission_id="job-1", lifetime=timedelta(hours=1), max_bytes=10)
    policy = json.loads(base64.b64decode(post.fields["policy"]))
    assert ["starts-with", "$key", "out/job-1/"] in policy["conditions"]
    assert ["content-length-range", 0, 10] in policy["conditions"]
    assert post.uri == "s3://bucket/out/job-1/"
    assert "key" not in post.fields


def answer(code, status=403, headers=None):
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return boto.ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": metadata}, "Op")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer("NoSuchBucket", 404), DefinitionError, "bucket 'b' does not exist"),
        (answer("NoSuchKey", 404), BadInputError, "no such object"),
        (answer("SignatureDoesNotMatch"), AccessError, "access key or secret key is wrong"),
        (answer("AccessDenied"), AccessError, "may not do this in bucket 'b'"),
        (answer("RequestTimeTooSkewed"), DefinitionError, "clock"),
        (answer("PermanentRedirect", 301), DefinitionError, "region_name"),
        (answer("SlowDown", 503, {"retry-after": "7"}), TransientError, "busy"),
        (answer("SomethingNew", 418), PermanentError, "SomethingNew"),
        (answer("SomethingNew", 500), TransientError, "failing"),
        (boto.EndpointConnectionError(endpoint_url="http://x"), TransientError, "not reachable"),
        (boto.ReadTimeoutError(endpoint_url="http://x"), TransientError, "not reachable"),
        (boto.NoCredentialsError(), DefinitionError, "no access key"),
        (boto.SSLError(endpoint_url="https://x", error="e"), DefinitionError, "'verify'"),
        (boto.ParamValidationError(report="bad bucket"), DefinitionError, "bad bucket"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_name_connection_and_remedy(error, kind, words):
    ours = s3_error(error, conn_id="store", endpoint="http://s3", action="list 'x'", bucket="b")
    assert type(ours) is kind
    assert words in str(ours)
    assert "'store'" in str(ours)
    assert "http://s3" in str(ours)


def test_the_delay_that_a_store_asks_for_is_kept():
    ours = s3_error(answer("SlowDown", 503, {"retry-after": "7"}), conn_id="s", endpoint="", action="x")
    assert isinstance(ours, TransientError)
    assert ours.delay == 7


def test_an_unreachable_store_fails_the_test_button_with_a_sentence():
    ok, text = hook().test_connection()
    assert not ok
    assert "not reachable" in text


def test_the_next_client_reads_no_description_of_s3_again(monkeypatch):
    def client(**keys):
        fields = {"conn_type": "oscar_s3", "extra": {"endpoint_url": "http://127.0.0.1:9"}, **keys}
        return OscarS3Hook(connection=Connection.from_json(json.dumps(fields))).client

    read = []
    load = JSONFileLoader.load_file
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: read.append(path) or load(self, path))
    one = client(login="a", password="b")
    read.clear()
    other = client(login="c", password="d")
    assert read == []
    credentials = [each._request_signer._credentials.access_key for each in (one, other)]
    assert credentials == ["a", "c"], "what is shared is not whose they are"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert client()._request_signer._credentials.access_key == "first"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    assert client()._request_signer._credentials.access_key == "second"
