# SPDX-License-Identifier: Apache-2.0
"""Bad input, named: each gives a clear error or the right result, and what comes after it still goes through.

=====================================================  ==============================================================
case                                                   where
=====================================================  ==============================================================
missing or wrong connection field                      ``test_missing_field_is_named``
unreachable endpoint                                   ``test_unreachable_endpoint_is_named_and_worth_another_try``
wrong credentials                                      ``test_wrong_credentials_are_named_and_not_shown``
HDF5 truncated, without theta, without showers, empty  ``test_bad_file_fails_in_the_payloads_words``
object that vanished before its run                    ``test_object_that_vanished_fails_alone``
key with spaces, quotes, newlines, ../, 1024 bytes,    ``test_object_of_a_hostile_key_is_processed``,
not ASCII                                              ``tests/integration/watch/test_bad_names.py`` (being seen),
                                                       ``tests/integration/supervisor/test_stage_in.py`` (names on disk)
two uploads of one key                                 ``test_two_uploads_of_one_key_are_two_pieces_of_work``
zero-byte object                                       ``test_object_of_no_bytes_is_processed``
=====================================================  ==============================================================
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from typing import Any

import h5py
import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace
from oscar_testbed.platform import LocalPlatform
from threedgan.data import synthetic_showers

from airflow_provider_oscar.core.errors import (
    BadInputError,
    DefinitionError,
    PermanentError,
    TransientError,
)
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.dcache import DCacheHook
from airflow_provider_oscar.hooks.interlink.hook import InterLinkHook
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.hooks.s3.hook import OscarS3Hook
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.signing import configured_signer
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.operators.oscar import OscarJobOperator
from tests.integration.conftest import THREEDGAN_IMAGE
from tests.support.fakes import context

# boto3 leaves its pooled connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

COPY = ["python3", "-c", "import os,shutil; shutil.copy(os.environ['INPUT_FILE_PATH'], os.environ['TMP_OUTPUT_DIR'])"]
HOOKS: dict[str, tuple[type[Any], Callable[[Any], Any]]] = {
    "oscar_default": (OscarHook, lambda hook: hook.run(hook.list_services())),
    "dcache_default": (DCacheHook, lambda hook: hook.list_directory("/")),
    "oscar_s3_default": (OscarS3Hook, lambda hook: hook.head("incoming", "x")),
    "interlink_default": (InterLinkHook, lambda hook: hook.list_pods()),
}


def broken(platform: LocalPlatform, conn_id: str, **fields: Any) -> tuple[Any, Callable[[], Any]]:
    """A hook whose connection differs from the working one, and one call of it."""
    known = {**platform.connections[conn_id]}
    extra = known.pop("extra", {}) | fields.pop("extra", {})
    kind, call = HOOKS[conn_id]
    hook = kind(conn_id, connection=Connection(conn_id=conn_id, **known | fields, extra=json.dumps(extra)))
    return hook, lambda: call(hook)


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def kube_config(platform: LocalPlatform, *, server: str = "", token: str = "") -> dict[str, str]:
    config = platform.kubernetes.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = server or platform.kubernetes.url
    config["users"][0]["user"]["token"] = token or platform.kubernetes.token
    return {"kube_config_secret": json.dumps(config)}


def error_message(hook: Any, conn_id: str) -> str:
    """What the Test button says: never an exception, always the connection's name."""
    good, message = hook.test_connection()
    assert not good
    assert conn_id in message
    return str(message)


MISSING = {
    "no OSCAR endpoint": ("oscar_default", {"host": ""}, "OSCAR endpoint"),
    "no OSCAR password": ("oscar_default", {"password": None}, "login and password"),
    "unknown OSCAR auth": ("oscar_default", {"extra": {"auth_type": "magic"}}, "magic"),
    "no WebDAV URL": ("dcache_default", {"host": ""}, "URL"),
    "unknown dCache auth": ("dcache_default", {"extra": {"auth": "magic"}}, "expected 'none', 'basic'"),
    "CA file that is not there": ("dcache_default", {"extra": {"verify": "/no/such/file"}}, "/no/such/file"),
    "no S3 secret": ("oscar_s3_default", {"password": None}, "password"),
    "S3 endpoint without scheme": ("oscar_s3_default", {"host": "not a url"}, "endpoint"),
    "kube config that is none": ("interlink_default", {"extra": {"kube_config_secret": "[1, 2"}}, "kube_config"),
    "kube config file not there": (
        "interlink_default",
        {"extra": {"kube_config_secret": "", "kube_config_path": "/no/such/config"}},
        "kube_config_path",
    ),
}


@pytest.mark.parametrize(("conn_id", "fields", "words"), MISSING.values(), ids=MISSING)
def test_missing_field_is_named(platform, conn_id, fields, words):
    hook, call = broken(platform, conn_id, **fields)
    assert words in error_message(hook, conn_id)
    with pytest.raises(DefinitionError, match=conn_id):
        call()


@pytest.mark.parametrize("conn_id", HOOKS)
def test_unreachable_endpoint_is_named_and_worth_another_try(platform, conn_id):
    nowhere = closed_port()
    extra = {"dcache_default": {"frontend_url": nowhere}, "interlink_default": kube_config(platform, server=nowhere)}
    fields = {} if "interlink" in conn_id else {"host": nowhere}
    hook, call = broken(platform, conn_id, **fields, extra=extra.get(conn_id, {}))
    error_message(hook, conn_id)
    with pytest.raises(TransientError, match=conn_id):
        call()


@pytest.mark.parametrize("conn_id", HOOKS)
def test_wrong_credentials_are_named_and_not_shown(platform, conn_id):
    guess = "wrong-but-secret"
    fields = {"extra": kube_config(platform, token=guess)} if "interlink" in conn_id else {"password": guess}
    hook, call = broken(platform, conn_id, **fields)
    message = error_message(hook, conn_id)
    # A token of Kubernetes is renewed by others, so its refusal is never final.
    with pytest.raises(TransientError if "interlink" in conn_id else DefinitionError, match=conn_id) as raised:
        call()
    assert guess not in message + str(raised.value)
    good, _ = HOOKS[conn_id][0](conn_id).test_connection()
    assert good, "the right credentials are not spoilt by the wrong ones"


def event_of(s3: OscarS3Hook, key: str, data: bytes) -> Any:
    s3.put_bytes("incoming", key, data)
    found = s3.head("incoming", key)
    assert found is not None
    assert found.key == key
    return found


def run(service: str, event: Any, command: list[str] = COPY) -> dict[str, Any]:
    """One piece of work for one object, identified by the object as the ingest DAG does."""
    task = OscarJobOperator(
        task_id="infer",
        service=service,
        object_event=event,
        command=command,
        output_uri="s3://outgoing/bad-input",
        timeout=120,
        poll_interval=0.2,
        deferrable=False,
    )
    return dict(task.execute(context(partition_key=event.partition_key, task_id="infer")))


def copied(s3: OscarS3Hook, manifest: dict[str, Any]) -> bytes:
    (output,) = manifest["outputs"]
    data = s3.read_bytes(manifest["output_uri"] + output["key"], 10_000)
    assert data is not None
    return data


@pytest.fixture(scope="module")
def _service_once(running_platform):
    """The payload's service, with this provider's supervisor."""
    connection = running_platform.connections["oscar_default"]
    hook = OscarHook(
        connection=Connection(
            conn_id="oscar_default", **connection | {"extra": json.dumps(connection.get("extra", {}))}
        )
    )
    script = service_script()
    definition = ServiceDefinition(name="payload", image=THREEDGAN_IMAGE, script=script)
    hook.run(hook.apply_service(with_key(definition, configured_signer())))


@pytest.fixture
def payload(_service_once, platform) -> str:
    return "payload"


def hdf5(**datasets: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        for name, values in datasets.items():
            target.create_dataset(name, data=values)
    return file.getvalue()


def without(name: str) -> bytes:
    return hdf5(**{key: values for key, values in synthetic_showers(1, seed=7).items() if key != name})


FILES = {
    "truncated": (lambda: hdf5(**synthetic_showers(1, seed=7))[:5000], "truncated"),
    "no theta": (lambda: without("theta"), "theta"),
    "no showers": (
        lambda: hdf5(**{name: values[:0] for name, values in synthetic_showers(1, seed=7).items()}),
        "no showers",
    ),
    "zero bytes": (lambda: b"", "0 bytes|empty|not an HDF5"),
}


@pytest.mark.parametrize(("make", "words"), FILES.values(), ids=FILES)
def test_bad_file_fails_in_the_payloads_words(payload, s3, request, make, words):
    event = event_of(s3, f"{request.node.callspec.id}.h5", make())
    with pytest.raises(AirflowFailException, match=words) as raised:
        run(payload, event, ["threedgan", "infer"])
    assert isinstance(raised.value.__context__, BadInputError)
    assert "exit code 65" in str(raised.value)


def test_good_file_after_the_bad_ones_succeeds(payload, s3):
    good = run(payload, event_of(s3, "good.h5", hdf5(**synthetic_showers(1, seed=7))), ["threedgan", "infer"])
    assert (good["exit_code"], good["metrics"]["showers"]) == (0, 1)


LONG = "long/" + "/".join(["x" * 200] * 4)
KEYS = {
    "spaces": " a b  c .h5",
    "quotes": "'a\"`$(touch x).h5",
    "newlines": "a\nb\r\n.h5",
    "dots": "up ../.. x/..h5",
    "1024 bytes": LONG + "/" + "y" * (1024 - len(LONG) - 4) + ".h5",
    "not ASCII": "ünï/日本😀.h5",
    "looks encoded": "+%2F%.h5?a#b",
    "looks like an option": "-rf",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_object_of_a_hostile_key_is_processed(payload, s3, key):
    event = event_of(s3, key, key.encode())
    manifest = run(payload, event)
    assert manifest["input"]["uri"] == event.uri
    assert copied(s3, manifest) == key.encode()


def test_key_the_store_refuses_is_named(s3):
    with pytest.raises(PermanentError, match=r"cannot write 'in/../up.h5' in bucket 'incoming': refused \(400"):
        s3.put_bytes("incoming", "in/../up.h5", b"")


def test_object_that_vanished_fails_alone(payload, s3):
    gone, kept = event_of(s3, "gone", b"gone"), event_of(s3, "kept", b"kept")
    s3.delete("incoming", "gone")
    with pytest.raises(AirflowFailException, match="gone") as raised:
        run(payload, gone)
    assert isinstance(raised.value.__context__, BadInputError)
    assert copied(s3, run(payload, kept)) == b"kept"


def test_two_uploads_of_one_key_are_two_pieces_of_work(payload, s3):
    first = event_of(s3, "twice", b"first")
    done = run(payload, first)
    second = event_of(s3, "twice", b"second")
    again = run(payload, second)
    assert (copied(s3, done), copied(s3, again)) == (b"first", b"second")
    assert done["submission_id"] != again["submission_id"]
    unseen = replace(first, etag="0" * 32)
    with pytest.raises(AirflowFailException, match="twice") as raised:
        run(payload, unseen)
    assert isinstance(raised.value.__context__, BadInputError), "a version that is overwritten is not taken for the new"


def test_object_of_no_bytes_is_processed(payload, s3):
    assert copied(s3, run(payload, event_of(s3, "nothing", b""))) == b""
