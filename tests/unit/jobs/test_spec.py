# SPDX-License-Identifier: Apache-2.0
"""The job specification: round trip, schema, and what it must refuse or hide."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from importlib import resources

import jsonschema
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import ObjectEvent, StoreType
from airflow_provider_oscar.core.staging import Checksum, StageIn, StageOutS3Post, StageOutWebDAV, safe_name
from airflow_provider_oscar.jobs.builder import checkpoint_names, relative_names
from airflow_provider_oscar.jobs.options import InlineFile, RunOptions
from airflow_provider_oscar.jobs.spec import JOB_VERSION, JobSpec
from airflow_provider_oscar.supervisor.errors import StageError
from airflow_provider_oscar.supervisor.spec import read_spec
from tests.fuzz.altered import altered
from tests.support.from_schema import ANYTHING, documents

SCHEMA = json.loads(resources.files("airflow_provider_oscar.jobs").joinpath("job.schema.json").read_text())
INPUT = StageIn(
    uri="s3://in/a%20b.h5",
    name="a_b.h5",
    size=3,
    etag="e",
    checksum=Checksum("adler32", "0000abcd"),
    url="https://s3/in/a%20b.h5?X-Amz-Signature=secret",
    headers={"Authorization": "Bearer secret"},
    event={"Records": []},
)
OUTPUTS = [
    StageOutS3Post(uri="s3://out/p/t/", url="https://s3/out", fields={"policy": "secret"}, prefix="p/t/"),
    StageOutWebDAV(uri="dcache://d/p/t/", url="https://door/p/t/", headers={"Authorization": "Bearer secret"}),
]


def spec(**changes):
    known = {
        "version": JOB_VERSION,
        "submission_id": "t-0123456789abcdef",
        "placement": "hpc-cpu",
        "submitted_at": datetime(2026, 11, 22, 9, tzinfo=UTC),
        "input": INPUT,
        "output": OUTPUTS[0],
        "command": ("run", "it"),
        "environment": {"A": "secret"},
        "timeout": 60.0,
        "max_output_bytes": 10,
    }
    return JobSpec(**{**known, **changes})


def read(fields):
    """The specification as its types read it; the program on the compute side has a reader of its own."""
    return msgspec.convert(fields, JobSpec)


@pytest.mark.parametrize("output", OUTPUTS, ids=["s3-post", "webdav"])
@pytest.mark.parametrize("source", [INPUT, None], ids=["input", "no input"])
def test_specification_survives_json_and_follows_its_schema(output, source):
    made = spec(output=output, input=source)
    fields = json.loads(made.to_json())
    jsonschema.validate(fields, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert read(fields) == made


@given(
    command=st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1).map(tuple),
    environment=st.dictionaries(
        st.text(st.characters(exclude_characters="\0="), min_size=1), st.text(st.characters(exclude_characters="\0"))
    ),
)
def test_command_and_environment_of_any_characters_survive_json(command, environment):
    made = spec(command=command, environment=environment)
    assert read(json.loads(made.to_json())) == made
    assert made.to_json().isascii()


def test_no_capability_is_shown_in_a_repr():
    for output in OUTPUTS:
        assert "secret" not in repr(spec(output=output))


def _names(fields):
    """Local names of the inputs, as the compute side makes them safe."""
    found = [] if fields.get("input") is None else [safe_name(fields["input"]["name"])]
    return found + [each["name"] for each in fields.get("inputs", ())]


@given(documents(SCHEMA), st.dictionaries(st.just("new"), ANYTHING))
def test_the_compute_side_reads_all_that_follows_the_schema(fields, unknown):
    assume(all(len(set(_names(each))) == len(_names(each)) for each in (fields, *fields.get("objects", ()))))
    there = read_spec(json.dumps({**fields, **unknown}).encode())
    assert (there["submission_id"], there["command"]) == (fields["submission_id"], fields["command"])
    assert there["environment"] == fields.get("environment", {})
    assert there["output"] == {"headers": {}, **fields["output"]} if fields["output"]["kind"] == "webdav" else True
    assert [each["uri"] for each in there["resume_from"]] == [each["uri"] for each in fields.get("resume_from", ())]
    assert [each["submission_id"] for each in there["objects"]] == [
        each["submission_id"] for each in fields.get("objects", ())
    ]
    assert read(fields).submission_id == fields["submission_id"]


@given(documents(SCHEMA), st.binary(min_size=2, max_size=6))
def test_the_compute_side_reads_or_refuses_any_other_form_and_never_fails(fields, changes):
    with contextlib.suppress(StageError):
        read_spec(json.dumps(altered(fields, changes)).encode())


@pytest.mark.parametrize("lifetime", [1e300, "inf", "nan", None, []])
def test_a_lifetime_beyond_any_clock_is_refused_as_what_it_is(lifetime):
    fields = json.loads(spec().to_json())
    access = {"url": "https://s3/a", "headers": {}, "until": "2026-11-28T00:00:00Z", "lifetime": lifetime}
    with pytest.raises(StageError, match="cannot use the job specification"):
        read_spec(json.dumps({**fields, "access": access}).encode())


@pytest.mark.parametrize("missing", sorted(SCHEMA["properties"].keys() - {*SCHEMA["required"]}))
def test_field_that_need_not_be_there_has_its_default_on_the_compute_side(missing):
    whole = spec(environment={}, timeout=None, max_output_bytes=None, signing_key="", request_digest="")
    fields = json.loads(whole.to_json())
    del fields[missing]
    jsonschema.validate(fields, SCHEMA)
    assert read_spec(json.dumps(fields).encode()) == read_spec(whole.to_json().encode())


@pytest.mark.parametrize("required", ["submission_id", "submitted_at", "output", "command", "version"])
def test_field_that_must_be_there_is_missed_on_the_compute_side(required):
    fields = json.loads(spec().to_json())
    del fields[required]
    with pytest.raises(StageError, match=required):
        read_spec(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": ()}, "expected a list of at least one string"),
        ({"command": ("a\0b",)}, "without NUL"),
        ({"environment": {"A=B": "c"}}, "'A=B' of job"),
        ({"environment": {"": "c"}}, "cannot be set"),
        ({"environment": {"A": "\0"}}, "has NUL characters"),
        ({"environment": {"A": 1}}, "variable 'A' of job .* which is not a text"),
        ({"environment": {"A": None}}, "which is not a text"),
        ({"environment": {1: "x"}}, "which is not a text"),
        ({"environment": {"A": "x" * 131_071}}, "has 131071 bytes, and Linux takes 131071 with its name"),
        ({"command": ("cat", "ü" * 65_536)}, "has 131072 bytes, .*give the job a file"),
        ({"timeout": 0}, "expected a positive number of seconds"),
        ({"submitted_at": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_run_is_refused_before_it_is_sent(changes, said):
    with pytest.raises(DefinitionError, match=said):
        spec(**changes)


@pytest.mark.parametrize(("kind", "value"), [("crc32", "00"), ("md5", "not hex"), ("md5", "")])
def test_checksum_of_unknown_form_is_refused(kind, value):
    with pytest.raises(DefinitionError, match="expected one of adler32, md5, sha256 and hex digits"):
        Checksum(kind, value)


@given(key=st.text())
def test_safe_name_is_one_plain_path_segment(key):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", safe_name(key))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("run/2026/a.h5", "a.h5"),
        ("a b\u00e9.h5", "a_b_.h5"),
        ("../..", "_."),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("dir/", "dir"),
        ("", "input"),
        ("x" * 500 + ".h5", "x" * 197 + ".h5"),
    ],
)
def test_safe_name_keeps_what_scripts_look_at(key, name):
    assert safe_name(key) == name


@given(
    st.builds(
        RunOptions,
        on_unstaged=st.sampled_from(["fail", "warn"]),
        grace_period=st.none() | st.floats(0, 1e6),
        launcher=st.sampled_from(["none", "srun", "mpirun", "torchrun"]),
        max_output_bytes=st.none() | st.integers(0, 10**15),
        nodes=st.none() | st.integers(1, 1000),
        ntasks=st.none() | st.integers(1, 1000),
        ntasks_per_node=st.none() | st.integers(1, 1000),
    ),
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9._-]{0,20}", fullmatch=True), st.binary(max_size=50), max_size=3),
)
def test_options_and_files_survive_json_and_follow_the_schema(options, files):
    made = spec(
        **options.settings(),
        files=tuple(InlineFile(name, content) for name, content in files.items()),
        stored_files=(INPUT,),
        inputs=(replace(INPUT, name="b.h5"), replace(INPUT, name="run_1/b.h5")),
        resume_from=(INPUT,),
    )
    fields = json.loads(made.to_json())
    jsonschema.validate(fields, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert read(fields) == made
    there = read_spec(made.to_json().encode())
    assert {name: there[name] for name in options.settings()} == options.settings()


@pytest.mark.parametrize(
    "change",
    [{"launcher": "ssh"}, {"on_unstaged": "ignore"}, {"nodes": 0}, {"ntasks": True}, {"grace_period": -1},
     {"grace_period": "30"}, {"grace_period": float("inf")}, {"grace_period": True}, {"max_output_bytes": "1G"},
     {"max_output_bytes": -1}, {"max_output_bytes": 1.5}, {"supervisor_image": 5}],
)  # fmt: skip
def test_option_that_is_none_is_refused(change):
    with pytest.raises(DefinitionError, match=next(iter(change))):
        RunOptions(**change)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1), max_size=6))
def test_local_names_of_many_objects_are_safe_and_different(keys):
    names = relative_names(keys)
    assert len(names) == len(set(names)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) for name in names for part in name.split("/"))


def test_local_names_keep_what_differs_below_the_shared_directory():
    assert relative_names(["in/run 1/a.h5", "in/run 1/deep/b.h5"]) == ["a.h5", "deep/b.h5"]
    assert relative_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert relative_names([]) == []


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["r/t-0123456789abcdef/checkpoint/state"], ["state"]),
        (["r/t-0123456789abcdef/checkpoint/deep/step 1.pt"], ["deep/step 1.pt"]),
        (["checkpoint/t-0123456789abcdef/checkpoint/checkpoint/x"], ["checkpoint/x"]),
        (["saved/by hand/a", "saved/by hand/deep/b"], ["a", "deep/b"]),
        ([], []),
    ],
)
def test_files_of_a_checkpoint_are_called_as_they_were(keys, names):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    events = [ObjectEvent(StoreType.S3, "c", "b", key, 4, "e", "", moment) for key in keys]
    assert checkpoint_names(events) == names
