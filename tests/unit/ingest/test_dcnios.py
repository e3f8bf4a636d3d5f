# SPDX-License-Identifier: Apache-2.0
"""A DCNiOS workflow becomes a DAG file that runs, with a word about each of its elements; whatever stands in it."""

from __future__ import annotations

import ast
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.ingest.dcnios.mapping import Plan, plan_workflow
from airflow_provider_oscar.ingest.dcnios.rendering import render
from airflow_provider_oscar.ingest.dcnios.report import Outcome, Report
from airflow_provider_oscar.ingest.dcnios.sources import SourceOptions
from airflow_provider_oscar.ingest.dcnios.workflow import Kind, read_workflow

DCACHE = {
    "name": "dcache",
    "endpoint": "https://dcache.example.org:3880/api/v1",
    "user": "reader",
    "password": "dcache-secret",
    "folder": "/data/in",
    "statefile": "seen",
}
KAFKA = {
    "name": "kafka",
    "bootstrap_servers": "broker.example.org:9093",
    "topic": "new-files",
    "group_id": "1",
    "sasl_username": "user",
    "sasl_password": "kafka-secret",
    "ssl_context": {"Truststore_Filename": "store.p12", "Truststore_Password": "store-secret"},
}
S3 = {"name": "s3", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_S3_BUCKET": "incoming"}
SQS = {"name": "sqs", "AWS_DEFAULT_REGION": "eu-west-1", "queue_name": "events"}
RUCIO = {
    "name": "rucio",
    "service_filter": "grayify",
    "queue_name": "events",
    "host": "mq.example.org",
    "port": 5671,
    "virtual_host": "user",
    "password": "rucio-secret",
    "ssl_client_auth": "WANT",
    "ssl_context": {"Truststore_Filename": "store.jks", "Truststore_Password": "store-secret"},
}
OSCAR = {
    "name": "invoke",
    "endpoint": "https://oscar.example.org",
    "service": "grayify",
    "user": "oscar",
    "password": "oscar-secret",
}
PUT_S3 = {
    "name": "put",
    "AWS_S3_BUCKET": "out",
    "MinIO_Endpoint": "http://minio.example.org:9000",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "minio-secret",
}
SOURCES = {"dCache": DCACHE, "Kafka": KAFKA, "GetS3": S3, "GetSQS": SQS, "RUCIO": RUCIO}
SECRETS = (
    "dcache-secret",
    "kafka-secret",
    "store-secret",
    "rucio-secret",
    "oscar-secret",
    "minio-secret",
    "nifi-secret",
)


def workflow(
    source: dict[str, Any] | None = None, destination: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The YAML of one source and one destination, of the kinds whose fields they have."""
    source, destination = source or DCACHE, destination or OSCAR
    kind = next(kind for kind, sample in SOURCES.items() if set(sample) - {"name"} <= set(source))
    end = "PutS3" if "AWS_S3_BUCKET" in destination else "OSCAR"
    return {
        "nifi": {
            "endpoint": "https://nifi.example.org",
            "user": "nifi",
            "password": "nifi-secret",
            "Source": {kind: [source]},
            "Destination": {end: [destination]},
            "connection": [{"from": source["name"], "to": destination["name"]}],
            **more,
        }
    }


def imported(document: Any, **options: Any) -> tuple[Plan, Report]:
    report = Report()
    return plan_workflow(read_workflow(document, report), report, SourceOptions(**options)), report


def outcomes(report: Report, element: str) -> dict[str, Outcome]:
    return {line.what: line.outcome for line in report.lines if line.element == element}


@pytest.fixture
def dags(tmp_path: Path) -> Any:
    """Write the DAG file of a plan, and return what Airflow makes of it."""

    def load(plan: Plan) -> dict[str, Any]:
        from airflow.dag_processing.dagbag import DagBag
        from airflow.serialization.serialized_objects import DagSerialization

        (tmp_path / "made.py").write_text(render(plan), encoding="ascii")
        bag = DagBag(dag_folder=str(tmp_path))
        assert bag.import_errors == {}
        for dag in bag.dags.values():
            DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        return dict(bag.dags)

    return load


def test_dcache_to_oscar_is_a_run_and_a_job_for_each_file(dags):
    plan, report = imported(workflow())
    (dag,) = dags(plan).values()
    (job,) = dag.tasks
    (trigger,) = [watcher.trigger for asset in dag.timetable.asset_condition.objects[:1] for watcher in asset.watchers]
    assert dag.dag_id == "dcache_to_invoke"
    assert (dag.timetable.policy.kind, dag.timetable.min_interval) == ("each", 0.0)
    assert trigger["classpath"].endswith("DCacheNewObjectTrigger")
    assert (trigger["kwargs"]["path"], trigger["kwargs"]["conn_id"]) == ("/data/in", "dcnios_dcache")
    assert (job.service, job.event_format, job.success_when) == ("grayify", "dcache", "status")
    assert (job.oscar_conn_id, job.retries) == ("dcnios_invoke", 5)
    assert outcomes(report, "dcache") == {
        "address and login of dCache": Outcome.MAPPED,
        "source dCache": Outcome.MAPPED,
        "statefile": Outcome.NOT_NEEDED,
    }


def test_connections_hold_the_addresses_and_secrets_and_nothing_else_does():
    document = workflow()
    document["nifi"]["Source"] = {kind: [sample] for kind, sample in SOURCES.items()}
    document["nifi"]["Destination"]["PutS3"] = [PUT_S3]
    document["nifi"]["connection"] = [
        {"from": sample["name"], "to": end} for sample in SOURCES.values() for end in ("invoke", "put")
    ]
    plan, report = imported(document)
    found = {each.conn_id: each.to_json() for each in plan.connections}
    assert {conn_id: each["conn_type"] for conn_id, each in found.items()} == {
        "dcnios_dcache": "dcache",
        "dcnios_kafka": "kafka",
        "dcnios_s3": "aws",
        "dcnios_sqs": "aws",
        "dcnios_rucio": "generic",
        "dcnios_invoke": "oscar",
        "dcnios_put": "oscar_s3",
    }
    assert found["dcnios_dcache"]["host"] == "https://dcache.example.org:2880"
    assert json.loads(found["dcnios_dcache"]["extra"])["frontend_url"] == "https://dcache.example.org:3880"
    assert found["dcnios_put"]["host"] == "http://minio.example.org:9000"
    assert json.loads(found["dcnios_kafka"]["extra"])["sasl.password"] == "kafka-secret"
    told = json.dumps([line.to_row() for line in report.lines]) + render(plan) + repr(plan)
    assert [secret for secret in SECRETS if secret in told] == []


def test_connections_are_read_by_the_hooks_they_are_for():
    from airflow.sdk import Connection

    from airflow_provider_oscar.hooks.dcache.settings import AuthMode, DCacheSettings
    from airflow_provider_oscar.hooks.s3.settings import S3Settings

    plan, _ = imported(workflow(destination=PUT_S3))
    dcache, put = (Connection(conn_id=each.conn_id, **each.to_json()) for each in plan.connections)
    settings = DCacheSettings.from_connection(dcache)
    assert (settings.auth, settings.frontend_url) == (AuthMode.BASIC, "https://dcache.example.org:3880/api/v1")
    assert S3Settings.from_connection(put).endpoint_url == "http://minio.example.org:9000"


@pytest.mark.parametrize(
    ("alterations", "steps", "left_out"),
    [
        ([("Merge", {"maxMessages": 10, "windowSeconds": 7})], ["merge"], 0),
        ([("Merge", {"maxMessages": 10, "windowSeconds": 7}), ("Encode", {})], ["merge", "encode:base64"], 0),
        ([("Encode", {"Encoding": "base32"})], ["encode:base32"], 0),
        ([("Encode", {"Encoding": "hex"}), ("Decode", {"Encoding": "hex"})], ["encode:hex", "decode:hex"], 0),
        ([("Decode", {"Encoding": "base64"}), ("Encode", {"Encoding": "hex"})], ["encode:hex"], 1),
        ([("Encode", {"Encoding": "rot13"})], [], 1),
        ([("Merge", {"maxMessages": "many", "windowSeconds": 7})], [], 1),
    ],
    ids=["merge", "merge-encode", "base32", "there-and-back", "decode-first", "unknown-encoding", "unknown-number"],
)
def test_alterations_become_batches_and_messages(dags, alterations, steps, left_out):
    entries = [{"action": action, **fields} for action, fields in alterations]
    plan, report = imported(workflow({**S3, "alterations": entries}))
    (dag,) = dags(plan).values()
    policy = dag.timetable.policy
    assert list(plan.flows[0].steps) == steps
    if "merge" in steps:
        assert (policy.kind, policy.size, policy.wait) == ("batch", 10, 7.0)
    else:
        assert policy.kind == "each"
    assert set(dag.task_dict) == ({"message", "invoke"} if steps else {"invoke"})
    told = [line.outcome for line in report.lines if line.what.startswith("alteration")]
    assert told.count(Outcome.MAPPED) == len(steps)
    assert len(told) - len(steps) == left_out


def test_rate_of_the_destination_is_shared_by_what_leads_to_it(dags):
    document = workflow(destination={**OSCAR, "components": [{"name": "InvokeOSCAR", "seconds": 2, "node": "PRIMARY"}]})
    document["nifi"]["Source"]["GetS3"] = [S3]
    document["nifi"]["connection"].append({"from": "s3", "to": "invoke"})
    plan, report = imported(document)
    found = dags(plan)
    assert {dag_id: dag.timetable.min_interval for dag_id, dag in found.items()} == {
        "dcache_to_invoke": 4.0,
        "s3_to_invoke": 4.0,
    }
    told = outcomes(report, "invoke")
    assert told["component 'InvokeOSCAR': one message each 2 s"] is Outcome.MAPPED
    assert told["component 'InvokeOSCAR': node 'PRIMARY'"] is Outcome.NOT_NEEDED
    assert told["one message each 2 s from 2 sources together"] is Outcome.CHANGED


def test_a_service_known_by_its_token_alone_is_started_and_not_looked_at(dags):
    token = {name: value for name, value in OSCAR.items() if name not in ("user", "password")} | {"token": "a-token"}
    plan, report = imported(workflow(destination=token))
    (dag,) = dags(plan).values()
    assert set(dag.task_dict) == {"invoke"}
    assert plan.connections[-1].extra == {"auth_type": "service_token"}
    (line,) = [line for line in report.lines if line.what == "address and login of OSCAR"]
    assert "give user and password" in line.remark


def test_put_s3_writes_the_message_under_a_name_that_a_retry_replaces(dags):
    plan, _ = imported(workflow(S3, PUT_S3))
    (dag,) = dags(plan).values()
    assert set(dag.task_dict) == {"put"}
    assert "OscarS3Hook('dcnios_put').put_bytes('out', context['run_id'], data)" in render(plan)


@pytest.mark.parametrize("source", [KAFKA, SQS, RUCIO], ids=["Kafka", "GetSQS", "RUCIO"])
def test_a_source_that_names_no_place_is_told_of_objects_unless_the_place_is_given(dags, source):
    plan, report = imported(workflow(source))
    (dag,) = dags(plan).values()
    name = source["name"]
    assert plan.flows[0].source.asset == f"dcnios/dcnios_{name}"
    assert dag.timetable.policy.kind == "each"
    (line,) = [line for line in report.lines if line.what.startswith("source ")]
    assert line.outcome is Outcome.NOT_MAPPED
    assert f"--place {name}=" in line.remark
    plan, report = imported(workflow(source), places={name: "s3://incoming/raw/"})
    (dag,) = dags(plan).values()
    assert plan.flows[0].source.uri == "s3://incoming/raw/"
    assert outcomes(report, name)[line.what] is (Outcome.MAPPED if source is KAFKA else Outcome.CHANGED)


def test_a_topic_makes_its_place_immediate(dags):
    plan, _ = imported(workflow(KAFKA), places={"kafka": "dcache:///data/in"})
    dags(plan)
    notifications = {"kind": "kafka", "topic": "new-files", "conn_id": "dcnios_kafka"}
    assert plan.flows[0].source.arguments["watch"] == {"notifications": notifications}
    assert plan.flows[0].source.event_format == "dcache"


@pytest.mark.parametrize("source", [S3, SQS], ids=["GetS3", "GetSQS"])
def test_a_queue_makes_a_bucket_immediate(dags, source):
    name, queue = source["name"], "https://sqs.eu-west-1.amazonaws.com/123/events"
    plan, report = imported(workflow(source), places={name: "s3://incoming/"}, queue_urls={name: queue})
    dags(plan)
    watch = plan.flows[0].source.arguments["watch"]
    assert watch == {"notifications": {"kind": "sqs", "queue_url": queue}}
    assert outcomes(report, name)[f"source {'GetS3' if source is S3 else 'GetSQS'}"] is Outcome.MAPPED


def test_a_place_that_cannot_be_watched_is_refused():
    with pytest.raises(DefinitionError, match="the place given for 'sqs' cannot be watched"):
        imported(workflow(SQS), places={"sqs": "nowhere://x/"})


def test_a_process_group_of_nifi_is_told_and_what_leads_there_too():
    group = {"name": "mine", "file": "group.json", "variables": {"key": "value"}}
    connection = [
        {"from": "dcache", "to": "mine"},
        {"from": "mine", "to": "invoke"},
        {"from": "dcache", "to": "invoke"},
    ]
    plan, report = imported(workflow(generic=[group], connection=connection))
    assert [flow.dag_id for flow in plan.flows] == ["dcache_to_invoke"]
    assert outcomes(report, "mine") == {"process group 'group.json' for NiFi": Outcome.NOT_MAPPED}
    assert [line.outcome for line in report.lines if line.element == "connection"] == [
        Outcome.NOT_MAPPED,
        Outcome.NOT_MAPPED,
        Outcome.MAPPED,
    ]


def test_the_older_form_without_sections_is_read(dags):
    document = {"nifi": {"S3": [S3], "SQS": [SQS], "OSCAR": [OSCAR], "connection": [{"from": "s3", "to": "invoke"}]}}
    plan, _ = imported(document)
    assert list(dags(plan)) == ["s3_to_invoke"]
    assert read_workflow(document, Report()).elements["sqs"].kind is Kind.SQS


def test_a_form_that_was_never_filled_in_gives_a_dag_file_to_fill_in(dags):
    document = workflow()
    document["nifi"]["Source"] = {
        "dCache": [
            {
                "name": "dcache",
                "endpoint": "<endpoint>",
                "folder": "<folder>",
                "components": [{"name": "GetFile", "seconds": 2, "node": "(ALL | PRIMARY)"}],
            }
        ],
        "GetS3": [{"name": "bucket", "AWS_S3_BUCKET": "<bucket>", "AWS_DEFAULT_REGION": "<region>"}],
        "Kafka": [{**KAFKA, "bootstrap_servers": "<ip>:<port>", "topic": "<topic>"}],
    }
    document["nifi"]["Destination"]["OSCAR"] = [{"name": "invoke", "endpoint": "https://<oscar>", "service": "<name>"}]
    document["nifi"]["connection"] = [{"from": name, "to": "invoke"} for name in ("dcache", "bucket", "kafka")]
    plan, report = imported(document)
    assert len(dags(plan)) == 3
    missing = {line.what for line in report.lines if line.outcome is Outcome.NOT_MAPPED}
    assert missing == {
        "address and login of dCache",
        "address and login of OSCAR",
        "service '<name>'",
        "source GetS3",
        "source Kafka",
    }


@pytest.mark.parametrize(
    "document",
    [None, [], "text", {}, {"nifi": None}, {"nifi": {"endpoint": "x"}}, {"nifi": {"Source": "x"}}],
    ids=repr,
)
def test_what_is_no_workflow_is_refused(document):
    with pytest.raises(DefinitionError, match="not a workflow of DCNiOS"):
        read_workflow(document, Report())


HOSTILE = [
    "'); import os; os.system('touch canary'); ('",
    '"""\nraise SystemExit("canary")\n"""',
    "{{ conn.dcnios_invoke.password }}",
    "{% for x in y %}",
    "a\nb\r\0\x1b[31m",
    "\\",
    "\ud800",
    "../../etc/passwd",
    "naïve ü",
    "class",
    "",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_stay_texts(dags, text, tmp_path):
    document = workflow(
        {**DCACHE, "name": text or "x", "folder": text, "endpoint": text},
        {**OSCAR, "service": text, "endpoint": text},
    )
    document["nifi"]["Source"]["GetS3"] = [{"name": f"{text} s3", "AWS_S3_BUCKET": text}]
    document["nifi"]["connection"].append({"from": f"{text} s3".strip(), "to": "invoke"})
    document["nifi"]["Destination"]["PutS3"] = [{"name": f"{text} put", "AWS_S3_BUCKET": text}]
    document["nifi"]["connection"] += [
        {"from": document["nifi"]["Source"]["dCache"][0]["name"].strip(), "to": f"{text} put".strip()}
    ]
    document["nifi"]["connection"][0]["from"] = document["nifi"]["Source"]["dCache"][0]["name"].strip()
    plan, report = imported(document)
    found = dags(plan)
    assert len(found) == len(plan.flows) >= 1
    for dag in found.values():
        for job in (task for task in dag.tasks if hasattr(task, "service")):
            assert not any(sign in job.service for sign in ("{{", "{%", "{#"))
    assert not (tmp_path / "canary").exists()
    assert all(line.element.isprintable() for line in report.lines)


_CODE = {node.id for node in ast.walk(ast.parse(render(imported(workflow())[0]))) if isinstance(node, ast.Name)}
_TEXTS = st.text(max_size=40) | st.sampled_from(HOSTILE)
_VALUES = st.recursive(
    _TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_value_changes_the_code_of_the_file(data):
    source = {key: data.draw(_VALUES, label=key) for key in DCACHE} | {"name": data.draw(_TEXTS)}
    destination = {key: data.draw(_VALUES, label=key) for key in OSCAR} | {"name": data.draw(_TEXTS)}
    for extra in ("components", "alterations", "ssl_context"):
        source[extra] = data.draw(_VALUES, label=extra)
    document = {
        "nifi": {
            "Source": {"dCache": [source]},
            "Destination": {"OSCAR": [destination]},
            "connection": [{"from": source["name"], "to": destination["name"]}],
        }
    }
    plan, _ = imported(document)
    tree = ast.parse(render(plan))
    known = {"OscarJobOperator", "NewObjects", "Asset", "dag", "task", "get_current_context", "get_objects"}
    known |= {"OscarHook", "encode_body", "message_payload", "submission_id", "json", "dict", "isinstance"}
    known |= {"source_1", "flow_1", "context", "service", "hook", "payload", "body", "name", "message", "invoke"}
    assert {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= known | _CODE
    assert len(plan.flows) <= 1


@settings(max_examples=4 * settings.default.max_examples)
@given(_VALUES)
def test_any_yaml_is_a_workflow_or_refused(document):
    for given_ in (document, {"nifi": document}, {"nifi": {"Source": {"dCache": document}, "connection": document}}):
        try:
            imported(given_)
        except DefinitionError:
            continue


def test_command_writes_the_file_the_report_and_the_connections_for_one_pair_of_eyes(tmp_path, capsys):
    from tests.support.command_line import parser

    (tmp_path / "flow.yaml").write_text(yaml.safe_dump(workflow(KAFKA)))
    made, connections = tmp_path / "flow_dag.py", tmp_path / "connections.json"
    words = ["oscar", "import", "dcnios", str(tmp_path / "flow.yaml"), "--dag-file", str(made)]
    options = parser().parse_args(
        [*words, "--connections", str(connections), "--place", "kafka=s3://incoming/", "-o", "json"]
    )
    options.func(options)
    rows = json.loads(capsys.readouterr().out)
    assert {row["element"] for row in rows} == {"nifi", "kafka", "invoke", "connection"}
    assert "NewObjects('s3://incoming/', watch=" in made.read_text()
    assert stat.S_IMODE(connections.stat().st_mode) == 0o600
    assert set(json.loads(connections.read_text())) == {"dcnios_kafka", "dcnios_invoke"}
    with pytest.raises(SystemExit, match="is there already"):
        options.func(options)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("a: [", (), "is not YAML"),
        ("x" * (1024 * 1024 + 1), (), "more than 1048576 bytes"),
        (yaml.safe_dump(workflow()), ("--place", "other=s3://b/"), "no element 'other'"),
        (yaml.safe_dump(workflow()), ("--place", "dcache"), "expected NAME=VALUE"),
        (yaml.safe_dump(workflow(connection=[])), (), "there is no DAG"),
    ],
    ids=["yaml", "size", "element", "pair", "no-connection"],
)
def test_command_says_in_a_line_what_is_wrong(tmp_path, content, words, message):
    from tests.support.command_line import parser

    (tmp_path / "flow.yaml").write_text(content)
    options = parser().parse_args(["oscar", "import", "dcnios", str(tmp_path / "flow.yaml"), *words])
    with pytest.raises(SystemExit, match=message):
        options.func(options)
