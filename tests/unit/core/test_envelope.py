# SPDX-License-Identifier: Apache-2.0
"""The envelope, opened by real shells: what goes in comes out, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.core.envelope import PREFIX, decode_arguments, decode_environment, encode
from airflow_provider_oscar.core.errors import DefinitionError

SHELLS = {
    "sh": ["/bin/sh"],
    "dash": [shutil.which("dash")],
    "bash": [shutil.which("bash"), "--posix"],
    "busybox": [shutil.which("busybox"), "sh"],
}
# Prints environment and arguments so that any byte can be told apart; stands in for the user's command.
REPORT = (
    "import os,sys;w=sys.stdout.buffer.write;"
    "[w(k+b'='+v+b'\\0') for k,v in os.environb.items()];w(b'\\0');[w(os.fsencode(a)+b'\\0') for a in sys.argv[1:]]"
)
NO_NUL = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"\n"))
# Names the shell itself cares about are in, those bash keeps read-only are not.
NAMES = st.sampled_from(["IFS", "PATH", "HOME", "a", "_x", "LANG", "OSCAR_1", "n", "v", "PS1"]) | st.from_regex(
    r"[A-Z_][A-Z0-9_]{2,20}", fullmatch=True
).filter(
    lambda name: name not in ("UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_ENV", "ENV", "LC_ALL", "OPTIND")
)


@pytest.fixture(params=SHELLS)
def shell(request):
    found = SHELLS[request.param]
    if not found[0]:
        pytest.skip(f"no {request.param} on this machine")
    return found


def opened(shell, encoded):
    """What a command sees after the decoder ran in the shell."""
    assert encoded.command == ["/bin/sh", "-c"]
    done = subprocess.run(
        [*shell, "-c", *encoded.args], env={"PATH": "/usr/bin:/bin", **encoded.env}, capture_output=True, check=True
    )
    environment, _, arguments = done.stdout.partition(b"\0\0")
    pairs = (pair.partition(b"=") for pair in environment.split(b"\0") if pair)
    return {name.decode(): value for name, _, value in pairs}, arguments.split(b"\0")[:-1]


def command(*arguments):
    return [sys.executable, "-ISc", REPORT, *arguments]


@settings(max_examples=25, deadline=None)
@given(env=st.dictionaries(NAMES, NO_NUL, max_size=4), arguments=st.lists(NO_NUL, max_size=4))
@example(env={"A": b"\n\n", "IFS": b"/", "PATH": b"/nowhere"}, arguments=[b"", b"\n", b"-n", b"$(id)", b"\xff"])
@example(env={}, arguments=[])
def test_bytes_survive_the_real_shell(env, arguments):
    seen, words = opened(["/bin/sh"], encode(env, command(*arguments)))
    assert {name: seen.get(name) for name in env} == env
    assert words == arguments


HOSTILE = {
    "A": "a,b c",
    "B": "'\"`$(id)$HOME\\n",
    "C": " lead, trail \n\n",
    "E": "",
    "PATH": "/nowhere",
    "U": "\u00e9\U0001f600",
}


def test_hostile_values_survive_every_shell(shell):
    seen, words = opened(shell, encode(HOSTILE, command(*HOSTILE.values())))
    assert {name: seen[name].decode() for name in HOSTILE} == HOSTILE
    assert [word.decode() for word in words] == list(HOSTILE.values())


def test_nothing_of_the_envelope_is_left_for_the_command(shell):
    seen, _ = opened(shell, encode(HOSTILE, command()))
    assert not [name for name in seen if name.startswith(PREFIX)]


def test_envelope_is_made_of_characters_every_plugin_keeps():
    encoded = encode(HOSTILE, ["a", "b c"])
    assert all(
        set(value) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_ ")
        for value in encoded.env.values()
    )
    [decoder] = encoded.args
    assert "\n" not in decoder
    assert "$(" not in decoder
    assert "$$" not in decoder


@given(env=st.dictionaries(NAMES, NO_NUL), arguments=st.lists(NO_NUL, max_size=5))
def test_decoding_in_python_is_the_inverse(env, arguments):
    encoded = encode(env, [b"run", *arguments])
    assert decode_environment(encoded.env) == env
    assert decode_arguments(encoded.env) == [b"run", *arguments]


def test_exit_code_is_the_commands(shell):
    encoded = encode({}, ["/bin/sh", "-c", "exit 7"])
    assert subprocess.run([*shell, "-c", *encoded.args], env={"PATH": "/usr/bin:/bin", **encoded.env}).returncode == 7


def test_missing_command_is_127(shell):
    encoded = encode({}, ["/no/such/program"])
    done = subprocess.run(
        [*shell, "-c", *encoded.args], env={"PATH": "/usr/bin:/bin", **encoded.env}, capture_output=True
    )
    assert done.returncode == 127


def test_image_without_base64_is_told_so(shell):
    done = subprocess.run(
        [*shell, "-c", *encode({}, ["x"]).args], env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    if shell[0].endswith("busybox"):
        pytest.skip("busybox has base64 built in")
    assert done.returncode == 127
    assert "the image has no base64 program" in done.stderr


def test_damaged_value_stops_before_the_command():
    encoded = encode({"A": "value"}, ["/bin/echo", "ran"])
    done = subprocess.run(
        ["/bin/sh", "-c", *encoded.args],
        env={"PATH": "/usr/bin:/bin", **encoded.env, "OSCARENV_A": "!!"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "OSCARENV_A", "\u00e9"])
def test_name_no_shell_can_set_is_refused(name):
    with pytest.raises(DefinitionError, match="cannot be used"):
        encode({name: "x"}, ["x"])


@pytest.mark.parametrize(("env", "argv"), [({"A": "a\0b"}, ["x"]), ({}, ["x", "\0"]), ({"A": b"\0"}, ["x"])])
def test_nul_is_refused(env, argv):
    with pytest.raises(DefinitionError, match="NUL"):
        encode(env, argv)


@pytest.mark.parametrize("argv", [[], [""]])
def test_missing_program_is_refused(argv):
    with pytest.raises(DefinitionError, match="no command"):
        encode({}, argv)


def test_value_that_fits_no_variable_is_refused_with_a_remedy():
    with pytest.raises(DefinitionError, match=r"the variable A takes .* pass it as a file"):
        encode({"A": "x" * 100_000}, ["x"])
    with pytest.raises(DefinitionError, match="the command line takes"):
        encode({}, ["x", "y" * 100_000])


def test_plain_leaves_everything_as_it_is():
    encoded = encode({"A": "a b"}, ["run", "x y"], plain=True)
    assert (encoded.env, encoded.command, encoded.args) == ({"A": "a b"}, ["run"], ["x y"])


def test_plain_refuses_what_json_cannot_carry():
    with pytest.raises(DefinitionError, match="not UTF-8"):
        encode({"A": b"\xff"}, ["run"], plain=True)
