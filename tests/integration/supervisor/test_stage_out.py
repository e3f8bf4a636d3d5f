# SPDX-License-Identifier: Apache-2.0
"""Outputs and manifest get out, through S3 POST policies and WebDAV alike, or the failure is loud."""

from __future__ import annotations

import hashlib
import json

import pytest

from airflow_provider_oscar.jobs.manifest import Manifest
from tests.support.http_store import redirect, refuse_at_once, reset, slow, status
from tests.support.supervised import job, s3_output, webdav_output

KINDS = {
    "s3": ("POST", s3_output, "/out/results/t-0123456789abcdef/"),
    "webdav": ("PUT", webdav_output, "/results/t-0123456789abcdef/"),
}


@pytest.fixture(params=KINDS)
def way(request, store):
    """HTTP method, output part of the specification, path of the outputs in the store."""
    method, output, base = KINDS[request.param]
    store.directories.add("/results/")
    return method, output(store), base


def script(text):
    return ["/bin/sh", "-ec", f'cd "$TMP_OUTPUT_DIR"; {text}']


def test_every_file_goes_out_with_its_checksum_and_the_manifest_last(store, supervise, way):
    method, target, base = way
    run = supervise(job(store, script("mkdir -p d/e; printf abc > d/e/x; : > empty"), output=target))
    assert run.code == 0, run.err
    assert store.objects[base + "d/e/x"] == b"abc"
    assert [(each.key, each.size, each.sha256) for each in run.manifest.outputs] == [
        ("d/e/x", 3, hashlib.sha256(b"abc").hexdigest()),
        ("empty", 0, hashlib.sha256(b"").hexdigest()),
    ]
    assert Manifest.from_json(store.objects[base + "manifest.json"]) == run.manifest
    assert list(store.objects)[-1] == base + "manifest.json"


HOSTILE = ["a b", "q'\"&=+%41", "${filename}", "\u00e9\u4e2d", "a\nb", "-rf", "%", "x?y#z", "'; rm -rf x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_file_name_of_any_kind_is_the_key(store, supervise, way, name):
    _, target, base = way
    run = supervise(job(store, ["/bin/sh", "-c", 'printf x > "$TMP_OUTPUT_DIR/$1"', "sh", name], output=target))
    assert run.code == 0, run.err
    assert [each.key for each in run.manifest.outputs] == [name]
    assert base + name in store.objects


def test_large_file_is_streamed(store, supervise, way):
    _, target, base = way
    run = supervise(
        job(store, script("head -c 5000000 /dev/zero > big"), output=target), OSCAR_SUPERVISOR_HTTP_TIMEOUT="10"
    )
    assert run.code == 0, run.err
    assert len(store.objects[base + "big"]) == 5_000_000


@pytest.mark.parametrize(
    "fault", [status(500), status(503, Retry_After="0"), reset, slow(0.8)], ids=["500", "503", "reset", "slow"]
)
def test_passing_fault_is_ridden_out(store, supervise, way, fault):
    method, target, base = way
    store.directories.add(base)
    store.faults[method].extend([fault, None, fault])
    run = supervise(job(store, script("printf abc > x"), output=target))
    assert run.code == 0, run.err
    assert store.objects[base + "x"] == b"abc"
    assert len(store.paths(method)) == 4


def test_expired_access_is_named_and_the_marker_line_still_tells(store, supervise, way):
    method, target, _ = way
    store.faults[method].extend([status(403, b"<Code>AccessDenied</Code>")] * 9)
    run = supervise(job(store, script("printf abc > x"), output=target))
    assert (run.code, run.manifest.exit_code, run.manifest.error.stage) == (77, 77, "stage-out")
    assert (run.error["reason"], run.error["permanent"]) == ("access-refused", True)
    assert [each["reason"] for each in run.raw["unstaged"]] == ["access-refused"]
    assert "has expired or does not cover it" in run.message
    assert not run.manifest.succeeded


def test_refusal_of_a_large_upload_before_its_end_is_understood(store, supervise, way):
    method, target, _ = way
    store.faults[method].extend([refuse_at_once(403)] * 9)
    run = supervise(job(store, script("head -c 30000000 /dev/zero > big"), output=target))
    assert run.code in (74, 77)
    assert "403" in run.message or "BrokenPipe" in run.message or "ConnectionReset" in run.message


def test_lost_manifest_turns_success_into_an_io_error(store, supervise, way):
    method, target, base = way
    store.directories.add(base)
    store.faults[method].extend([None] + [status(500)] * 9)
    run = supervise(job(store, script("printf abc > x"), output=target))
    assert (run.code, run.manifest.exit_code) == (74, 74)
    assert "stage-out of the manifest: the server answers 500 (gave up after 4 attempts)" in run.message


def test_lost_manifest_leaves_the_commands_own_code(store, supervise, way):
    method, target, _ = way
    store.faults[method].extend([status(500)] * 9)
    run = supervise(job(store, ["/bin/sh", "-c", "exit 5"], output=target))
    assert (run.code, run.manifest.error.stage) == (5, "stage-out")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ln -s /etc/passwd leak", "leads out of TMP_OUTPUT_DIR"),
        ("ln -s / root", "leads out of TMP_OUTPUT_DIR"),
        ("ln -s ../input up", "leads out of TMP_OUTPUT_DIR"),
        ("mkfifo pipe", "not a regular file"),
        ("ln -s nowhere broken", "a symbolic link to something that does not exist"),
        ("printf x > manifest.json", "the name is reserved for the job's own files"),
        ("printf x > `printf 'a\\377'`", "not UTF-8"),
    ],
)
def test_what_cannot_go_out_is_an_error_and_the_rest_goes_out(store, supervise, way, text, why):
    _, target, base = way
    run = supervise(job(store, script(f"printf ok > fine; {text}"), output=target))
    assert (run.code, run.manifest.error.stage) == (73, "stage-out")
    assert run.error["permanent"] is True
    assert why in run.message
    assert store.objects[base + "fine"] == b"ok"
    assert not [data for data in store.objects.values() if b"root:" in data]


def test_link_within_the_outputs_is_followed(store, supervise, way):
    _, target, base = way
    run = supervise(job(store, script("mkdir d; printf x > d/a; ln -s d/a b; ln -s d e"), output=target))
    assert run.code == 0, run.err
    assert [each.key for each in run.manifest.outputs] == ["b", "d/a"]
    assert store.objects[base + "b"] == b"x"


def test_limit_of_bytes_is_kept_and_said(store, supervise, way):
    _, target, base = way
    spec = job(store, script("printf 123 > a; printf 456789 > b; printf 1 > c"), output=target, max_output_bytes=5)
    run = supervise(spec)
    assert run.code == 73
    assert "'b': it has 6 bytes, and 2 bytes are left of what the job may stage out" in run.message
    assert [each.key for each in run.manifest.outputs] == ["a", "c"]


def test_form_is_sent_to_no_other_place(store, other_store, supervise):
    store.faults["POST"].extend([redirect(307, f"{other_store.url}/out")] * 2)
    run = supervise(job(store, script("printf x > a")))
    assert (run.code, run.error["permanent"]) == (73, True)
    assert "correct endpoint or region" in run.message
    assert other_store.requests == []


def test_one_404_of_a_proxy_before_the_door_costs_nothing(store, supervise):
    store.directories.add("/results/t-0123456789abcdef/")
    store.faults["PUT"].append(status(404, b"404 page not found"))
    run = supervise(job(store, script("printf x > a"), output=webdav_output(store)))
    assert run.code == 0, run.err
    store.faults["PUT"].extend([status(404)] * 2)
    run = supervise(job(store, script("printf x > a"), output=webdav_output(store)))
    assert (run.code, run.error["permanent"]) == (73, True)
    assert "answers 404 for output" in run.message


def test_put_follows_a_door_to_its_pool_without_the_token(store, other_store, supervise):
    other_store.directories.add("/pool/")
    store.faults["PUT"].extend([redirect(307, f"{other_store.url}/pool/1"), redirect(307, f"{other_store.url}/pool/2")])
    run = supervise(job(store, script("printf x > a"), output=webdav_output(store)))
    assert run.code == 0, run.err
    assert other_store.objects["/pool/1"] == b"x"
    assert not [headers for _, _, headers in other_store.requests if "Authorization" in headers]


def test_directories_are_made_only_when_the_door_asks(store, supervise):
    run = supervise(job(store, script("mkdir -p d/e; printf x > d/e/y"), output=webdav_output(store)))
    assert run.code == 0, run.err
    assert "/results/t-0123456789abcdef/d/e/" in store.directories
    store.requests.clear()
    supervise(job(store, script("printf x > z"), output=webdav_output(store)))
    assert store.paths("MKCOL") == []


def test_file_of_an_earlier_attempt_is_replaced_where_overwriting_is_off(store, supervise):
    store.overwrite = False
    for text in ("first", "second"):
        run = supervise(job(store, script(f"printf {text} > x"), output=webdav_output(store)))
        assert run.code == 0, run.err
    assert store.objects["/results/t-0123456789abcdef/x"] == b"second"


def test_marker_line_is_bounded_and_says_so(store, supervise):
    text = 'i=0; while [ $i -lt 700 ]; do : > "$i"; i=$((i+1)); done; '
    text += 'echo \'{"device":"cpu"}\' > "$SUPERVISOR_METRICS_FILE"'
    run = supervise(job(store, script(text)))
    assert run.code == 0, run.err
    assert len(run.out.splitlines()[-1]) <= 60_000
    assert run.manifest.truncated
    assert (run.manifest.outputs, run.manifest.metrics, run.manifest.device) == ((), {}, "cpu")
    stored = Manifest.from_json(store.objects["/out/results/t-0123456789abcdef/manifest.json"])
    assert (len(stored.outputs), stored.truncated) == (700, False)


def test_marker_line_fits_even_with_a_monstrous_name(store, supervise):
    spec = job(store, script(": > x"))
    spec["output"]["uri"] = "s3://out/" + "x" * 70_000
    run = supervise(spec)
    assert len(run.out.splitlines()[-1]) <= 60_000
    assert json.loads(run.out.splitlines()[-1].partition(" ")[2])["exit_code"] == 0
