# SPDX-License-Identifier: Apache-2.0
"""Nothing the command prints is lost: shown as it comes, and whole beside the manifest."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from airflow_provider_oscar.supervisor.joblog import PLAIN_LIMIT, JobLog
from tests.support.http_store import status
from tests.support.supervised import SUBMISSION, job, start, webdav_output

BASE = f"/out/results/{SUBMISSION}/"


def test_whole_log_of_a_failed_command_is_beside_the_manifest(store, supervise):
    script = "seq 1 20000; echo TRACEBACK >&2; for i in 1 2 3; do echo frame$i; done; exit 1"
    run = supervise(job(store, ["/bin/sh", "-c", script]))
    log = store.objects[BASE + "job.log"].decode()
    lines = [line for line in log.splitlines() if not line.startswith("airflow-oscar:")]
    assert lines == [*(str(number) for number in range(1, 20001)), "TRACEBACK", "frame1", "frame2", "frame3"]
    entry = run.raw["log"]
    assert entry["key"] == "job.log"
    assert entry["sha256"] == hashlib.sha256(store.objects[BASE + "job.log"]).hexdigest()
    assert run.out.startswith("1\n2\n")
    assert list(store.objects)[-1] == BASE + "manifest.json"


def test_large_log_is_compressed_and_complete(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", "seq 1 400000"]), OSCAR_SUPERVISOR_HTTP_TIMEOUT="10")
    assert run.raw["log"]["key"] == "job.log.gz"
    log = gzip.decompress(store.objects[BASE + "job.log.gz"]).decode()
    kept = [line for line in log.splitlines() if not line.startswith("airflow-oscar:")]
    assert kept == [str(number) for number in range(1, 400001)]
    assert len(store.objects[BASE + "job.log.gz"]) < len(log) / 3


def test_silent_command_has_no_log(store, supervise):
    run = supervise(job(store, ["true"]))
    assert "log" not in run.raw
    assert BASE + "job.log" not in store.objects


def test_order_of_both_streams_is_kept(store, supervise):
    script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done"
    supervise(job(store, ["/bin/sh", "-c", script]))
    lines = store.objects[BASE + "job.log"].decode().splitlines()[:10]
    assert lines == [f"{stream}{number}" for number in range(1, 6) for stream in ("out", "err")]


def test_output_is_shown_while_the_command_runs(store, tmp_path):
    go = tmp_path / "go"
    script = f"printf 'no newline'; while [ ! -e {go} ]; do sleep 0.05; done; echo end"
    process = start(tmp_path, job(store, ["/bin/sh", "-c", script]))
    assert process.stdout is not None
    shown = process.stdout.read(10)
    go.touch()
    process.communicate(timeout=120)
    assert shown == "no newline"


def test_python_prints_without_being_asked_to_flush(store, tmp_path):
    go = tmp_path / "go"
    code = f"import os,time; print('begun')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    process = start(tmp_path, job(store, ["python3", "-c", code]))
    assert process.stdout is not None
    line = process.stdout.readline()
    go.touch()
    process.communicate(timeout=120)
    assert line == "begun\n"


def test_last_line_without_newline_is_not_glued_to_ours(store, supervise):
    supervise(job(store, ["printf", "no newline at end"]))
    assert store.objects[BASE + "job.log"].decode().splitlines()[0] == "no newline at end"


def test_bytes_of_any_kind_are_kept(store, supervise):
    supervise(job(store, ["/bin/sh", "-c", "printf '\\377\\000\\033[31m\\r\\n'"]))
    assert store.objects[BASE + "job.log"].startswith(b"\xff\x00\x1b[31m\r\n")


def test_log_is_bounded_and_says_where_it_ends(store, supervise):
    run = supervise(job(store, ["/bin/sh", "-c", "seq 1 100000"]), OSCAR_SUPERVISOR_LOG_LIMIT="100000")
    assert run.code == 0
    log = store.objects[BASE + "job.log"]
    assert len(log) < 101_000
    assert b"the log ends here: longer than 100000 bytes" in log
    assert run.raw["log"]["problem"].startswith("longer than")
    assert run.out.splitlines()[99_999] == "100000", "what is shown is not cut"


def test_lost_log_does_not_cost_the_result(store, supervise):
    store.directories |= {"/results/", f"/results/{SUBMISSION}/"}
    store.faults["PUT"].extend([None, status(403), status(403)])
    command = ["/bin/sh", "-c", 'echo x; printf y > "$TMP_OUTPUT_DIR/y"']
    run = supervise(job(store, command, output=webdav_output(store)))
    assert run.code == 0, run.err
    assert "refuses output 'job.log'" in run.raw["log"]["problem"]


def test_reader_that_goes_away_does_not_stop_the_command(store, tmp_path):
    process = start(tmp_path, job(store, ["/bin/sh", "-c", "seq 1 100000; echo end"]))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"\n100000\nend\n" in store.objects[BASE + "job.log"]


@pytest.mark.parametrize("size", [0, 1, PLAIN_LIMIT, PLAIN_LIMIT + 1, 3 * PLAIN_LIMIT])
def test_log_file_holds_exactly_what_was_written(tmp_path, size):
    log, data = JobLog(str(tmp_path)), bytes(range(256)) * (size // 256 + 1)
    for begin in range(0, size, 60_000):
        log.write(data[begin : min(begin + 60_000, size)])
    log.close()
    raw = (tmp_path / log.name).read_bytes()
    log.release()
    assert (gzip.decompress(raw) if log.name.endswith(".gz") else raw) == data[:size]
    assert log.name == ("job.log" if size <= PLAIN_LIMIT else "job.log.gz")
    assert {path.name for path in tmp_path.iterdir()} == {log.name}


@pytest.mark.parametrize("size", [1_000, 3_000_000])
@pytest.mark.parametrize(
    "how",
    ['rm -rf "$work"/job.log*', 'for each in "$work"/job.log*; do echo forged > "$each.x"; mv "$each.x" "$each"; done'],
)
def test_a_command_that_removes_or_replaces_the_file_changes_nothing_of_the_log(store, supervise, how, size):
    script = (
        f'work=$(dirname "$TMP_OUTPUT_DIR"); echo begun; head -c {size} /dev/zero | tr "\\0" x; {how}; echo; echo end'
    )
    run = supervise(job(store, ["/bin/sh", "-c", script]))
    assert run.code == 0, run.err
    raw = store.objects[f"/out/results/{SUBMISSION}/{run.raw['log']['key']}"]
    kept = (gzip.decompress(raw) if run.raw["log"]["key"].endswith(".gz") else raw).decode()
    assert kept.startswith("begun\n")
    assert "x" * size + "\nend\n" in kept


def test_a_checkpoint_directory_that_is_none_any_more_is_named(store, supervise):
    script = 'rmdir "$CHECKPOINT_DIR"; echo state > "$CHECKPOINT_DIR"; exit 75'
    run = supervise(job(store, ["/bin/sh", "-c", script]))
    assert (run.code, [each["name"] for each in run.raw["unstaged"]]) == (75, ["checkpoint/."])
