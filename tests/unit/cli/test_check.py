# SPDX-License-Identifier: Apache-2.0
"""``airflow oscar check``: rows, and the exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.hooks.checks import Check, clock_difference, run, run_all
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from tests.support.command_line import parser
from tests.support.oscar_faults import connected_oscar

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def check(capsys):
    def run(*words):
        options = parser().parse_args(["oscar", "check", *words, "-o", "json"])
        capsys.readouterr()
        code = 0
        try:
            options.func(options)
        except SystemExit as error:
            code = error.code
        return code, {row["check"]: row for row in json.loads(capsys.readouterr().out)}

    return run


def test_an_oscar_that_works_passes_and_what_it_lacks_is_a_warning(check, monkeypatch, tmp_path):
    with connected_oscar(monkeypatch, tmp_path) as oscar:
        code, rows = check("oscar_default", "--write")
        assert code == 0
        assert "OSCAR v4.1.2" in rows["version and login"]["detail"]
        assert rows["names of jobs"]["result"] == "ok"
        assert rows["interLink"]["result"] == "warning"
        assert (rows["quota"]["result"], rows["quota"]["detail"]) == ("ok", "none: a password is the administrator's")
        assert rows["write"]["result"] == "ok"
        assert oscar.buckets.names() == [], "what was written is removed again"
        assert all(row["seconds"] >= 0 for row in rows.values())
        oscar.options.version = "v3.3.3"
        code, rows = check("oscar_default")
        assert (code, rows["names of jobs"]["result"], rows["list buckets"]["result"]) == (0, "warning", "warning")
        assert "write" not in rows


def test_a_wrong_password_fails_and_the_exit_code_says_so(check, monkeypatch, tmp_path):
    with connected_oscar(monkeypatch, tmp_path):
        monkeypatch.setattr(OscarHook, "auth", httpx.BasicAuth("oscar", "wrong"))
        code, rows = check("oscar_default")
        assert (code, rows["latency"]["result"], rows["version and login"]["result"]) == (1, "ok", "failed")
        assert "401" in rows["version and login"]["detail"]


def test_another_type_of_connection_is_refused(check, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_HTTP_DEFAULT", json.dumps({"conn_type": "http", "host": "h"}))
    options = parser().parse_args(["oscar", "check", "http_default"])
    with pytest.raises(SystemExit, match="is of type 'http'; expected aws, dcache, interlink, kubernetes, oscar"):
        options.func(options)


def test_an_error_of_a_foreign_library_is_a_row_and_not_a_traceback():
    def broken() -> str:
        raise RuntimeError("boto's own")

    assert run(Check("c", broken))["result"] == "failed"
    assert run(Check("c", broken, needed=False))["result"] == "warning"


@pytest.mark.parametrize(("seconds", "said"), [(0, "less than 2 s"), (29, "+29 s"), (-29, "-29 s")])
def test_small_differences_of_clocks_are_told(seconds, said):
    assert clock_difference(format_datetime(NOON + timedelta(seconds=seconds)), NOON) == said


def test_a_connection_that_is_not_there_is_one_line(monkeypatch):
    for words in (["check", "none"], ["services", "list", "-c", "none"], ["hpc", "jobs", "-c", "none"]):
        options = parser().parse_args(["oscar", *words])
        with pytest.raises(SystemExit, match=r"^error: .*`none`.*airflow connections list") as ended:
            options.func(options)
        assert "\n" not in str(ended.value)


@pytest.mark.parametrize("date", ["", "yesterday", format_datetime(NOON + timedelta(minutes=5))])
def test_large_differences_and_no_time_are_named(date):
    with pytest.raises(DefinitionError, match="clock differs by 300 s|does not tell its time"):
        clock_difference(date, NOON)


def test_nothing_is_tried_after_a_gate_that_failed():
    tried = []

    def look(name: str, error: str = "") -> Check:
        def done() -> str:
            tried.append(name)
            if error:
                raise DefinitionError(error)
            return "fine"

        return Check(name, done, gate=name == "login")

    assert [row["result"] for row in run_all([look("login"), look("list", "no"), look("read")])] == [
        "ok",
        "failed",
        "ok",
    ]
    tried.clear()
    rows = run_all([look("login", "wrong password"), look("list"), look("read")])
    assert [row["result"] for row in rows] == ["failed", "skipped", "skipped"]
    assert rows[2]["detail"] == "not tried after 'login' failed"
    assert tried == ["login"], "a login that is refused again and again locks the account"
