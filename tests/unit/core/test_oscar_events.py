# SPDX-License-Identifier: Apache-2.0
"""JSON arrives at OSCAR's supervisor as it was sent, through Kubernetes and a shell that has it unquoted."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.oscar_events import shell_json

HOSTILE = [
    "a  b", " x ", "x * y", "*", "?", "[a-z]*", "a\\b", "\\n", "\\c", "\\0101", "line\nline", "tab\tand\rreturn",
    "$(HOME)", "${HOME}", "$$", "`id`", "$(id)", '"quoted"', "it's", "~", "~root", "é", "日本", "😀", "\ud800", "\x00",
    "-n", "a;b|c&d<e>f", "{a,b}", "!1", "#", "",
]  # fmt: skip


@pytest.mark.parametrize("shell", [each for each in ("dash", "bash", "busybox") if shutil.which(each)])
def test_no_text_is_changed_by_the_shell_of_a_job(shell, tmp_path):
    (tmp_path / "file").touch()
    value = {"texts": HOSTILE, **{text: number for number, text in enumerate(HOSTILE)}}
    command = [shell, *(["sh"] if shell == "busybox" else []), "-c", "echo $EVENT"]
    environment = {"EVENT": shell_json(value, "it").decode(), "HOME": "/nowhere", "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout
    assert json.loads(printed) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_the_value_is_the_same_and_nothing_in_it_is_special(value):
    sent = shell_json(value, "it")
    assert json.loads(sent) == value
    assert not set(sent.decode()) & set(" \t\n*?$`")
    assert sent.isascii()


@pytest.mark.parametrize(
    "value", [{"a": object()}, {"a": float("nan")}, {"a": b"x"}, {(1, 2): 3}], ids=["object", "nan", "bytes", "tuple"]
)
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(DefinitionError, match="^the payload cannot be sent as JSON: "):
        shell_json(value, "the payload")
