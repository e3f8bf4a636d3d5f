# SPDX-License-Identifier: Apache-2.0
"""FDL files give the values that oscar-cli sends: those of goccy/go-yaml 1.9.8, which was run on the same texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.core.coercion import go_text
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl, in_order, read_yaml
from airflow_provider_oscar.core.services import ServiceDefinition, StoragePath

#: Text of an environment value, and what oscar-cli sends for it.
SENT = {
    "yes": "yes", "no": "no", "on": "on", "off": "off", "y": "y", "Yes": "Yes", "True": "true", "FALSE": "false",
    "null": "", "~": "", "": "", '""': "", "12:30:45": "12:30:45", "1:20": "1:20", "2024-01-02": "2024-01-02",
    "2024-01-02T10:00:00Z": "2024-01-02T10:00:00Z", "0123": "83", "0o17": "15", "0x1F": "31", "-0x1F": "-31",
    "0b101": "5", "1_000": "1000", "1.10": "1.1", "1.0": "1", "128e6": "128e6", "1e3": "1e3", "1E3": "1E3",
    "1e+3": "1e+3", "1.5e-3": "0.0015", ".5": "0.5", "5.": "5", "-5": "-5", "+5": "5", "-0": "0", "+1.5": "1.5",
    "1234567.5": "1.2345675e+06", "123456789.0": "1.23456789e+08", "100000000": "100000000", "1.2.3": "1.2.3",
    "1e400": "1e400", "0": "0", "00": "0", "0xG": "0xG", "1__0": "10", "_1": "_1", "1_": "1", "1e": "1e",
    "12e03": "12e03", "<<": "<<", "b\t\t": "b", "'q'\t": "q", "b c\t\td": "b c\t\td", "b #c": "b", "x:y": "x:y",
    ".inf": "+Inf", "-.Inf": "-Inf", "+.inf": "+.inf", ".NaN": "NaN", "nan": "nan", "@me": "@me", "`d`": "`d`",
    "%d": "%d", "1_0.5_0": "10.5", "-18446744073709551615x": "-18446744073709551615x", "!!float 1": "1",
    "a, b": "a, b", "http://x:80/y": "http://x:80/y", "!!str yes": "yes", "2024-01-02 10:00": "2024-01-02 10:00",
    "'x\ty'": "x\ty",
}  # fmt: skip


EXPOSED = {"min_scale": 1, "max_scale": 10, "cpu_threshold": 80, "health_path": "/", "api_port": [5000]}
TEXTS = {"storage_provider": "minio.default", "path": "abc/b", "suffix": [".txt"]}


def fdl(variable: str) -> str:
    return (
        "functions:\n  oscar:\n  - c:\n      name: svc\n      image: i\n      script: s.sh\t\n"
        f"      environment:\n        Variables:\n          A: {variable}\n          'yes': 1\n"
    )


def services(text: str) -> list[ServiceDefinition]:
    return from_fdl(text, lambda path: f"#!/bin/sh\n# {path}\n")


@pytest.mark.parametrize(("written", "sent"), SENT.items(), ids=map(repr, SENT))
def test_values_are_those_that_oscar_cli_sends(written, sent):
    (service,) = services(fdl(written))
    assert service.environment["variables"] == {"A": sent, "yes": "1"}


@pytest.mark.parametrize("written", ["09", "123456789012345678901234567890", "-9223372036854775809", "0o8"])
def test_number_that_oscar_cli_would_falsify_is_refused_with_line_and_remedy(written):
    with pytest.raises(DefinitionError, match=rf"line 9: .*{written}.*put it in quotes"):
        services(fdl(written))


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20))
def test_quoted_text_arrives_as_it_is(text):
    assert read_yaml(f"a: {json.dumps(text, ensure_ascii=False)}")["a"] == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_printed_as_go_does_is_the_same_number(number):
    assert float(go_text(number)) == number


@given(st.text(alphabet="ab:-\t #[]{}'\"\n|>&*!?,", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = read_yaml(text)
    except DefinitionError:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ("memory: 128e6", {"memory": "128e6"}),
        ("memory: 1Gi\t\t", {"memory": "1Gi"}),
        ("cpu: 1.0", {"cpu": "1"}),
        ("cpu:", {"cpu": "0.2"}),
        ("log_level: debug", {"log_level": "DEBUG"}),
        ("log_level: CRITICAL\t\t", {"log_level": "CRITICAL"}),
        ("log_level: LOUD", {"log_level": "INFO"}),
        ("interLink: vega", {"interlink_node_name": "vega"}),
        ("replicas: [{type: oscar}]", {"federation": {"members": [{"type": "oscar"}]}}),
        ("annotations: {job.vk.io/pre-exec: x}", {"annotations": {"slurm-job.vk.io/pre-exec": "x"}}),
        ("image_rules: [x]", {"image": "i"}),
        ("clusters: {c: {endpoint: e, memory: 1Gi, log_level: INFO}}", {"clusters": {"c": {"endpoint": "e"}}}),
        ("enable_InterLink: false", {"interlink_node_name": ""}),
        ("expose: {port: 5000}", {"expose": EXPOSED}),
        ("output: [{storage_provider: minio, path: abc/b, suffix: .txt}]", {"output": [TEXTS]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_forms_of_public_files_are_understood(fields, sent):
    text = f"functions:\n  oscar:\n  - c:\n      name: svc\n      image: i\n      script: s.sh\n      {fields}\n"
    body = services(text)[0].to_api()
    assert {name: body[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("enable_InterLink: true", "line 4: .*interlink_node_name"),
        ("interlink_node: x\n      interlink_node_name: y", "twice"),
        ("expose: {health_pth: /}", "did you mean 'health_path'"),
        ("volumes: {}", "did you mean 'volume'"),
        ("environment: {variable: {}}", "did you mean 'variables'"),
        ("storage_providers: {webdav: {dcache: {host: d}}}", r"webdav\.dcache has .*'host'.*did you mean 'hostname'"),
        ("storage_providers: {webdev: {}}", "'webdev'.*did you mean 'webdav'"),
        ("storage_providers: {s3: {aws: {acces_key: a}}}", r"s3\.aws has .*did you mean 'access_key'"),
        ("clusters: {c: {endpoint: https://c, user: u}}", r"clusters\.c has .*'user'"),
        ("federation: {members: [{type: oscar, cluster: c}]}", r"members\[0\] has .*did you mean 'cluster_id'"),
        ("replicas: [{type: oscar, service: c}]", r"members\[0\] has .*did you mean 'service_name'"),
        ("kserve: {storage_ur: x}", r"kserve has .*did you mean 'storage_uri'"),
        ("kserve: {inference: {format: x}}", r"kserve\.inference has .*did you mean 'model_format'"),
        ("mount: {storage_provider: minio, pth: a}", r"mount has .*did you mean 'path'"),
        ("Name: svc2", "the field 'name' twice, under two spellings"),
        ("replicas: []\n      federation: {}", "write them into federation"),
    ],
    ids=str,
)
def test_what_the_server_would_drop_is_refused_with_the_nearest_name(fields, message):
    with pytest.raises(DefinitionError, match=message):
        services(f"functions:\n  oscar:\n  - c:\n      name: svc\n      image: i\n      script: s.sh\n      {fields}\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("expose: {api_port: 80, set_auth: 'yes'}", r"expose\.set_auth is 'yes'; expected true or false"),
        ("expose: {api_port: 80, min_scale: '1'}", r"expose\.min_scale is '1'; expected a whole number"),
        ("expose: {api_port: 80, cpu_threshold: 0.8}", r"expose\.cpu_threshold is '0.8'"),
        ("federation: {members: {}}", r"federation\.members is '{}'; expected a list"),
        (
            "storage_providers: {minio: {x: {secret_key: [hunter2]}}}",
            r"minio\.x\.secret_key is a list; expected a text",
        ),
        ("storage_providers: {minio: hunter2}", r"storage_providers\.minio is no such thing; expected a mapping"),
        ("storage_providers: {minio: {x: {verify: 'true'}}}", r"minio\.x\.verify is 'true'; expected true or false"),
        ("environment: {secrets: [hunter2]}", r"environment\.secrets is a list"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_with_line_and_place_and_without_a_secret(fields, message):
    with pytest.raises(DefinitionError, match=f"line 4: .*{message}") as raised:
        services(f"functions:\n  oscar:\n  - c:\n      name: svc\n      image: i\n      script: s.sh\n      {fields}\n")
    assert "hunter2" not in str(raised.value)


def test_numbers_in_credentials_are_sent_as_the_texts_that_oscar_cli_sends():
    provider = "storage_providers: {webdav: {dcache: {hostname: d, login: 12345, password: 1.50}}}\n"
    (service,) = services(f"functions: {{oscar: [{{c: {{name: svc, image: i, script: s.sh}}}}]}}\n{provider}")
    assert service.to_api()["storage_providers"]["webdav"]["dcache"] == {
        "hostname": "d",
        "login": "12345",
        "password": "1.5",
    }


ONE = "functions:\n  oscar:\n  - c:\n      name: svc\n      image: i\n      script: s.sh\n"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + ONE,
        ONE.replace("\n", "\r\n"),
        "---\n" + ONE + "...\n",
        "---\n---\n" + ONE + "---\n",
        "%YAML 1.1\n---\n" + ONE,
        '{\n\t"functions": {\n\t\t"oscar": [\n\t\t\t{"c": {"name": "svc", "image": "i", "script": "s.sh"}}]}}',
        ONE.replace("script:", "script:\t") + "\t\n\t# comment\n",
    ],
    ids=["byte order mark", "CRLF", "one document", "empty documents", "directive", "JSON with tabs", "tabs"],
)
def test_a_file_of_another_form_is_the_same_service(text):
    assert services(text) == services(ONE)


def test_a_second_document_is_refused_with_its_line():
    with pytest.raises(DefinitionError, match=r"line 8: the FDL has another document.*below one 'functions'"):
        services(f"{ONE}---\n{ONE}")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (f"{ONE}      image: j\n", "line 7: the key 'image' is there twice; the last one counts"),
        ("x: &a {A: '1'}\n" + ONE + "      environment: {Variables: {<<: *a, A: '2'}}\n", ""),
        ("x: &a {A: '1'}\ny: &b {<<: *a, A: '2'}\n" + ONE + "      environment: {Variables: {<<: [*b, *a]}}\n", ""),
    ],
)
def test_a_key_that_is_there_twice_is_said_unless_it_overrides_what_is_merged_in(text, warned, caplog):
    (service,) = services(text)
    assert caplog.text.count("there twice") == bool(warned)
    assert warned in caplog.text
    assert (service.image, service.environment["variables"].get("A", "2")) == ("j" if warned else "i", "2")


@pytest.mark.parametrize(
    ("value", "remedy"),
    [("*.txt", r"begins with '\*'"), ("*all", r"begins with '\*'"), ("!x y", "begins with '!'"), ("a: b", "': '")],
)
def test_a_text_that_yaml_takes_for_something_else_is_refused_with_the_remedy(value, remedy):
    with pytest.raises(DefinitionError, match=rf"line 9: .*{remedy}.* in quotes|line 9: .*{remedy}"):
        services(fdl(value))


def test_service_without_a_cluster_belongs_to_the_cluster_of_the_connection():
    (service,) = services("functions:\n  oscar:\n  - name: svc\n    image: i\n    script: s.sh\n")
    assert (service.name, service.cluster_id) == ("svc", "")


def test_script_of_several_lines_is_the_script_itself():
    (service,) = services('functions: {oscar: [{c: {name: svc, image: i, script: "#!/bin/sh\\necho $X\\n"}}]}')
    assert service.script == "#!/bin/sh\necho $X\n"


def test_absolute_script_is_asked_for_as_oscar_cli_does():
    (service,) = services("functions: {oscar: [{c: {name: svc, image: i, script: /opt/run.sh}}]}")
    assert "# /opt/run.sh" in service.script


def test_template_cannot_add_fields():
    text = 'functions: {oscar: [{c: {name: svc, image: "{{ x }}", script: s.sh}}]}'
    (service,) = from_fdl(text, lambda path: "true\n", fill_in=lambda value: value.replace("{{ x }}", 'i"}, a: {b'[:1]))
    assert service.image == "i"
    with pytest.raises(DefinitionError, match="without blanks"):
        from_fdl(
            text, lambda path: "true\n", fill_in=lambda value: value.replace("{{ x }}", 'i"\n        enable_gpu: true')
        )


def test_reader_of_a_bucket_comes_before_its_writers():
    def one(name: str, reads: str, writes: str) -> ServiceDefinition:
        paths = {"inputs": reads, "outputs": writes}
        found = {key: (StoragePath(storage_provider="minio", path=path),) for key, path in paths.items()}
        return ServiceDefinition(name=name, image="i", script="true\n", **found)

    chain = [one("a", "first/in", "second/in"), one("b", "second/in", "third/in"), one("c", "third/in", "last/out")]
    assert [each.name for each in in_order(chain)] == ["c", "b", "a"]
    circle = [one("a", "first/in", "second/in"), one("b", "second/in", "first/in")]
    assert sorted(each.name for each in in_order(circle)) == ["a", "b"]


BUCKET = "functions: {oscar: [{c: {name: one, image: i, script: 'a\n', SIDE: [{path: 'BUCKET/in'}]}}]}"


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize(
    "bucket", ["od", "Upper", "under_score", "-dash", "dash-", "two..dots", ".dot", "192.168.1.1", "x" * 64, "ü" * 4]
)
def test_a_name_that_minio_takes_for_no_bucket_is_refused_with_line_and_remedy(bucket, side):
    text = BUCKET.replace("BUCKET", bucket).replace("SIDE", side)
    with pytest.raises(DefinitionError, match=rf"line 1: service 'one': the {side} .*3 to 63 characters"):
        from_fdl(text, lambda path: "true")


@pytest.mark.parametrize("bucket", ["abc", "a.b-c", "1.2.3", "x" * 63])
def test_a_name_that_minio_takes_is_sent(bucket):
    (service,) = from_fdl(BUCKET.replace("BUCKET", bucket).replace("SIDE", "input"), lambda path: "true")
    assert service.input_buckets == (bucket,)
