# SPDX-License-Identifier: Apache-2.0
"""The object arrives whole, or the manifest says why not; faults of the network are ridden out.

Keeps row T4 of the threat model true (docs/security.md).
"""

from __future__ import annotations

import hashlib
import os
import zlib

import pytest

from tests.support.http_store import cut, redirect, reset, slow, status
from tests.support.supervised import job, source

SHOW = ["/bin/sh", "-c", 'cat "$INPUT_FILE_PATH"; basename "$INPUT_FILE_PATH"']
COPY = ["/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"']
DATA = os.urandom(3_000_000).hex().encode()


def test_object_is_handed_over_under_its_safe_name(store, supervise):
    run = supervise(job(store, SHOW, input=source(store, b"payload-")))
    assert run.code == 0
    assert "payload-a_b.h5\n" in run.out


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "", "-rf", "a\nb", "x" * 5000 + ".h5"])
def test_hostile_name_stays_below_the_input_directory(store, supervise, name):
    script = 'd=`dirname "$INPUT_FILE_PATH"`; [ "$d" = "$TMP_INPUT_DIR" ] && [ -f "$INPUT_FILE_PATH" ]'
    assert supervise(job(store, ["/bin/sh", "-c", script], input=source(store, name=name))).code == 0


def test_empty_object_is_an_object(store, supervise):
    run = supervise(job(store, SHOW, input=source(store, b"")))
    assert run.code == 0
    assert run.manifest.input.size == 0


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([cut(DATA, 1_500_000), cut(DATA, 0)], id="cut short"),
        pytest.param([status(500), status(503, Retry_After="0"), status(429)], id="busy"),
        pytest.param([reset, reset], id="reset"),
        pytest.param([slow(0.8)], id="slower than the timeout"),
    ],
)
def test_passing_fault_is_ridden_out(store, supervise, faults):
    spec = job(store, ["/bin/sh", "-c", 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/copy"'], input=source(store, DATA))
    store.faults["GET"].extend(faults)
    run = supervise(spec)
    assert run.code == 0, run.err
    assert store.objects[f"/out/{spec['output']['prefix']}copy"] == DATA
    assert len(store.paths("GET")) == len(faults) + 1


def test_fault_that_stays_ends_with_an_io_error_after_a_bounded_number_of_attempts(store, supervise):
    store.faults["GET"].extend([status(500)] * 9)
    run = supervise(job(store, SHOW, input=source(store)))
    assert (run.code, run.manifest.error.stage) == (74, "stage-in")
    assert "answers 500 (gave up after 4 attempts)" in run.message
    assert len(store.paths("GET")) == 4


@pytest.mark.parametrize("code", [404, 410])
def test_vanished_object_is_bad_input_when_more_than_one_answer_says_so(store, supervise, code):
    store.faults["GET"].extend([status(code, b"<Code>NoSuchKey</Code>")] * 2)
    run = supervise(job(store, SHOW, input=source(store)))
    assert (run.code, len(store.paths("GET"))) == (66, 2)
    assert "vanished" in run.message


@pytest.mark.parametrize(
    ("method", "code"),
    [("GET", 401), ("GET", 403), ("GET", 404), ("GET", 410), ("GET", 507), ("POST", 401), ("POST", 403), ("POST", 507)],
)
def test_one_refusal_costs_nothing(store, supervise, method, code):
    store.faults[method].append(status(code, b"<Code>AccessDenied</Code>"))
    run = supervise(job(store, COPY, input=source(store)))
    assert run.code == 0, run.err
    assert len(store.paths(method)) == (2 if method == "GET" else 3)


PAGE = b"<!DOCTYPE html><html><head><title>Maintenance</title></head></html>"


@pytest.mark.parametrize(("method", "code"), [("GET", 200), ("GET", 206), ("POST", 200)])
def test_a_page_in_the_stores_place_is_neither_the_object_nor_an_upload(store, supervise, method, code):
    told = {"Content_Type": "text/html; charset=utf-8", "Last_Modified": "Sun, 22 Nov 2026 08:59:59 GMT", "ETag": '"p"'}
    store.faults[method].append(status(code, PAGE, **told))
    spec = job(store, COPY, input=source(store))
    run = supervise(spec)
    assert run.code == 0, run.err
    assert store.objects[f"/out/{spec['output']['prefix']}copy"] == b"0123456789"
    assert len(store.paths(method)) == (2 if method == "GET" else 3), "the page was not believed"


@pytest.mark.parametrize(("method", "code"), [("GET", 404), ("GET", 410), ("POST", 400), ("POST", 404), ("POST", 405)])
@pytest.mark.parametrize("body", [b"", b"404 page not found", PAGE], ids=["nothing", "Traefik", "a page"])
def test_a_proxys_refusal_costs_neither_the_object_nor_what_was_computed(store, supervise, method, code, body):
    store.faults[method].extend([status(code, body)] * 3)
    run = supervise(job(store, COPY, input=source(store)))
    assert run.code == 0, run.err
    store.faults[method].extend([status(code, body)] * 20)
    run = supervise(job(store, COPY, input=source(store)))
    assert (run.code, run.error["permanent"]) == (74, False)
    assert f"what answers {code} is not the store" in run.message


def test_the_stores_own_refusal_of_an_upload_decides(store, supervise):
    store.faults["POST"].extend([status(404, b"<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>")] * 2)
    run = supervise(job(store, COPY, input=source(store)))
    assert (run.code, run.error["permanent"]) == (73, True)


def test_an_object_that_is_a_page_is_an_object(store, supervise):
    for of_store in ("x-amz-request-id", "x-goog-hash"):
        store.headers = {"Content-Type": "text/html", of_store: "1"}
        assert supervise(job(store, COPY, input=source(store, PAGE))).code == 0
    store.headers = {"Content-Type": "text/html", "Last-Modified": "Sun, 22 Nov 2026 08:59:59 GMT"}
    assert supervise(job(store, COPY, input=source(store, PAGE, uri="dcache://door/in/a.html"))).code == 0


@pytest.mark.parametrize("body", [b"", b"<?xml version='1.0'?><PostResponse><Key>a</Key></PostResponse>"])
def test_a_store_that_calls_its_answer_a_page_is_a_store(store, supervise, body):
    store.faults["POST"].extend([status(200, body, Content_Type="text/html")] * 2)
    run = supervise(job(store, COPY, input=source(store)))
    assert (run.code, len(store.paths("POST"))) == (0, 2)


def test_a_store_that_is_full_for_as_long_as_one_that_is_away_is_a_matter_for_a_retry(store, supervise):
    store.faults["POST"].extend([status(507)] * 9)
    run = supervise(job(store, COPY, input=source(store)))
    assert (run.code, run.error["permanent"]) == (74, False)
    assert "507: it is full" in run.message


@pytest.mark.parametrize("code", [401, 403])
def test_expired_url_is_named_as_such(store, supervise, code):
    store.faults["GET"].append(status(code, b"<Code>AccessDenied</Code><Message>Request has expired</Message>"))
    run = supervise(job(store, SHOW, input=source(store)))
    assert (run.code, len(store.paths("GET"))) == (77, 1)
    assert run.error["permanent"] is False, "nothing was computed, and a new submission has new URLs"
    assert "has expired or does not cover it" in run.message
    assert "submit again, with a longer lifetime" in run.message


@pytest.mark.parametrize(
    ("seen", "headers"),
    [({"size": 11}, {}), ({"size": 3}, {}), ({"etag": "old"}, {"ETag": '"new"'})],
    ids=["shorter", "longer", "another entity tag"],
)
def test_object_overwritten_meanwhile_is_refused(store, supervise, seen, headers):
    store.headers = headers
    run = supervise(job(store, SHOW, input=source(store, **seen)))
    assert run.code == 66
    assert "was overwritten after it was seen" in run.message


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', "v1"])
def test_entity_tag_is_compared_without_its_decoration(store, supervise, etag):
    store.headers = {"ETag": etag}
    assert supervise(job(store, SHOW, input=source(store, etag="v1"))).code == 0


CHECKSUMS = {
    "adler32": lambda data: f"{zlib.adler32(data):08x}",
    "md5": lambda data: hashlib.md5(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest().upper(),
}


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_checksum_is_verified(store, supervise, kind):
    good = source(store, b"abc", checksum={"type": kind, "value": CHECKSUMS[kind](b"abc")})
    assert supervise(job(store, SHOW, input=good)).code == 0
    bad = source(store, b"abd", checksum={"type": kind, "value": CHECKSUMS[kind](b"abc")})
    run = supervise(job(store, SHOW, input=bad))
    assert run.code == 66
    assert f"its {kind} checksum is" in run.message


def test_headers_follow_a_redirect_to_the_same_origin_and_no_other(store, other_store, supervise):
    spec = job(store, SHOW, input=source(store, b"far", headers={"Authorization": "Bearer secret", "X-Own": "1"}))
    other_store.objects["/pool"] = b"far"
    store.faults["GET"].extend([redirect(307, "/in/a%20b.h5"), redirect(302, f"{other_store.url}/pool?uuid=1")])
    run = supervise(spec)
    assert run.code == 0, run.err
    assert [headers.get("Authorization") for _, _, headers in store.requests[:2]] == ["Bearer secret"] * 2
    [(_, path, headers)] = other_store.requests
    assert path == "/pool?uuid=1"
    assert not {"Authorization", "X-Own"} & headers.keys()


def test_fourth_redirect_is_refused(store, supervise):
    store.faults["GET"].extend([redirect(302, "/in/a%20b.h5")] * 4)
    run = supervise(job(store, SHOW, input=source(store)))
    assert run.code == 73
    assert "more than 3 redirects" in run.message


def test_redirect_to_another_scheme_is_refused(store, supervise):
    store.faults["GET"].append(redirect(302, "file:///etc/passwd"))
    run = supervise(job(store, SHOW, input=source(store)))
    assert run.code == 73
    assert "not an http(s) URL" in run.message


def test_no_secret_is_printed_even_when_everything_fails(store, supervise):
    store.faults["GET"].extend([status(500), redirect(302, "http://[bad"), status(403)])
    store.faults["POST"].extend([status(403)] * 4)
    run = supervise(job(store, SHOW, input=source(store, headers={"Authorization": "Bearer secret"})))
    assert run.code == 73
    assert "secret" not in run.out + run.err
