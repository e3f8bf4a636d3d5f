# SPDX-License-Identifier: Apache-2.0
"""OSCAR services whose jobs really run, in the cloud's process containers and on a virtual node."""

from __future__ import annotations

import base64
import itertools
import json
import os
from pathlib import Path

import httpx
import pytest
from oscar_testbed.fakes.interlink import LocalInterLink
from oscar_testbed.fakes.kubernetes import LocalKubernetes
from oscar_testbed.fakes.oscar import LocalOscar
from oscar_testbed.fakes.s3 import LocalS3
from oscar_testbed.fakes.slurm import open_slurm
from oscar_testbed.faults import OscarFaults
from oscar_testbed.images import LocalImage
from oscar_testbed.process import free_port, wait_until

_numbers = itertools.count()


class OscarCluster:
    """OSCAR over S3, Kubernetes and the built-in queue."""

    def __init__(self, directory):
        self.faults = OscarFaults()
        self.directory = directory
        images = {"tools:1": LocalImage("tools:1", [], {"FROM_IMAGE": "yes"})}
        self.s3 = LocalS3(directory / "s3")
        self.kubernetes = LocalKubernetes(directory / "kubernetes")
        self.slurm = open_slurm(directory / "slurm", "builtin")
        self.interlink = LocalInterLink(self.kubernetes, self.slurm, images, directory / "interlink")
        self.oscar = LocalOscar(self.s3, None, images, self.kubernetes, directory / "oscar", self.faults)
        self.parts = [self.s3, self.kubernetes, self.interlink, self.oscar]

    def start(self):
        for part in self.parts:
            part.start()
        self.client = httpx.Client(base_url=self.oscar.url, auth=(self.oscar.username, self.oscar.password), timeout=30)

    def stop(self):
        self.client.close()
        for part in reversed(self.parts):
            part.stop()
        self.slurm.stop()

    def service(self, script, **more):
        name = f"svc{next(_numbers)}"
        body = {"name": name, "image": "tools:1", "script": script, "cpu": "1.0", "memory": "256Mi"}
        answer = self.client.post("/system/services", json=body | more)
        assert (answer.status_code, answer.text) == (201, "")
        return name

    def submit(self, service, content, name=""):
        token = self.client.get(f"/system/services/{service}").json()["token"]
        name = name or f"job-{next(_numbers)}"
        headers = {"Authorization": f"Bearer {token}", "X-Delegated-Job-ID": name}
        answer = httpx.post(f"{self.oscar.url}/job/{service}", headers=headers, content=content, timeout=30)
        assert (answer.status_code, answer.text) == (201, "")
        return name

    def entry(self, service, job):
        return self.client.get(f"/system/logs/{service}").json()["jobs"][job]

    def until(self, service, job, *statuses):
        statuses = statuses or ("Succeeded", "Failed")
        wait_until(lambda: self.entry(service, job)["status"] in statuses, what=f"{job} is {statuses}", timeout=60)
        return self.entry(service, job)["status"]

    def log(self, service, job):
        return self.client.get(f"/system/logs/{service}/{job}").text

    def event(self, bucket, key, data=b"hello"):
        self.s3.client().put_object(Bucket=bucket, Key=key, Body=data)
        quoted = httpx.QueryParams({"k": key}).__str__()[2:]
        where = {"bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}, "object": {"key": quoted}}
        record = {"eventSource": "minio:s3", "eventTime": "2026-01-02T03:04:05Z", "s3": where}
        return json.dumps({"Key": f"{bucket}/{quoted}", "Records": [record]}, separators=(",", ":"))

    def keys(self, bucket):
        return [one["Key"] for one in self.s3.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = OscarCluster(tmp_path_factory.mktemp("cloud"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(params=["", "slurm-cpu"], ids=["cloud", "interlink"])
def node(request):
    return request.param


def test_object_goes_in_and_its_results_come_out(cluster, node):
    name = f"box{next(_numbers)}"
    service = cluster.service(
        'printf "%s %s " "$STORAGE_OBJECT_KEY" "$FROM_IMAGE$MINE"; tr a-z A-Z < "$INPUT_FILE_PATH" | '
        'tee "$TMP_OUTPUT_DIR/loud.txt"; touch "$TMP_OUTPUT_DIR/ignored.log"',
        input=[{"storage_provider": "minio.default", "path": f"{name}/in"}],
        output=[{"storage_provider": "minio.default", "path": f"{name}/out", "suffix": [".txt"]}],
        environment={"variables": {"MINE": " a b"}},
        interlink_node_name=node,
    )
    job = cluster.submit(service, cluster.event(name, "in/a b+ü.txt"))
    assert cluster.until(service, job) == "Succeeded"
    assert "in/a b+ü.txt yes a b HELLO" in cluster.log(service, job)
    assert [key for key in cluster.keys(name) if key.startswith("out/") and key != "out/"] == ["out/loud.txt"]
    missed = {"start_time"} if node else set()  # interLink's plugin need not see a short job running
    assert set(cluster.entry(service, job)) | missed == {"status", "creation_time", "start_time", "finish_time"}


def test_base64_body_arrives_as_the_input_file(cluster, node):
    body = b'{"x": "\\n *  $(OSCAR_SERVICE_TOKEN) $HOME"}'
    service = cluster.service('cat "$INPUT_FILE_PATH"', interlink_node_name=node)
    job = cluster.submit(service, base64.b64encode(body))
    assert cluster.until(service, job) == "Succeeded"
    assert body.decode() in cluster.log(service, job)


def test_failed_script_still_succeeds_unless_strict(cluster, node):
    service = cluster.service("echo before; exit 3", interlink_node_name=node)
    job = cluster.submit(service, "{}")
    assert cluster.until(service, job) == "Succeeded"
    with cluster.faults.during(strict=True):
        job = cluster.submit(service, "{}")
    assert cluster.until(service, job) == "Failed"
    assert "before" in cluster.log(service, job)


def test_one_slot_runs_one_job_and_a_deleted_job_is_killed(cluster):
    service = cluster.service(f"echo $$ > {cluster.directory}/pid; sleep 300")
    first, second = cluster.submit(service, "{}"), cluster.submit(service, "{}")
    wait_until((cluster.directory / "pid").exists, what="the first job runs", timeout=120)
    assert [cluster.entry(service, job)["status"] for job in (first, second)] == ["Running", "Pending"]
    assert cluster.client.delete(f"/system/logs/{service}/{second}").status_code == 204
    pid = int((cluster.directory / "pid").read_text())
    assert cluster.client.delete(f"/system/logs/{service}/{first}").status_code == 204
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the script is gone", timeout=120)
    assert cluster.client.get(f"/system/logs/{service}").json() == {"jobs": {}}


def test_deleting_an_offloaded_job_cancels_its_batch_job(cluster):
    service = cluster.service("sleep 300", interlink_node_name="slurm-cpu")
    job = cluster.submit(service, "{}")
    cluster.until(service, job, "Running")
    batch = next(one for one in cluster.slurm.jobs().values() if one.state == "R")
    assert cluster.client.delete(f"/system/logs/{service}/{job}").status_code == 204
    wait_until(lambda: cluster.slurm.jobs()[batch.job_id].state == "CA", what="the batch job ends", timeout=120)
    wait_until(lambda: not cluster.client.get(f"/system/logs/{service}").json()["jobs"], what="it is gone", timeout=120)


def test_body_too_large_for_a_variable_fails_the_job(cluster):
    service = cluster.service("true")
    job = cluster.submit(service, base64.b64encode(b"x" * 100_000))
    assert cluster.until(service, job) == "Failed"
    assert "too long" in cluster.log(service, job)


def test_service_survives_a_restart_of_oscar(cluster):
    service = cluster.service("echo still here")
    before = cluster.client.get(f"/system/services/{service}").json()
    cluster.oscar.stop()
    assert not cluster.oscar.healthy()
    cluster.oscar.start()
    assert cluster.client.get(f"/system/services/{service}").json() == before
    job = cluster.submit(service, "{}")
    assert cluster.until(service, job) == "Succeeded"


def test_config_gives_the_keys_of_the_store(cluster):
    config = cluster.client.get("/system/config").json()
    assert config["config"]["interLink_available"] is True
    assert config["minio_provider"]["endpoint"] == cluster.s3.endpoint
    assert config["minio_provider"]["secret_key"] == cluster.s3.secret_key


def test_presigned_url_uploads(cluster):
    name = f"box{next(_numbers)}"
    assert cluster.client.post("/system/buckets", json={"bucket_name": name}).status_code == 201
    body = {"object_key": "a/b", "operation": "upload"}
    answer = cluster.client.post(f"/system/buckets/{name}/presign", json=body).json()
    assert httpx.request(answer["method"], answer["url"], content=b"x").is_success
    objects = cluster.client.get(f"/system/buckets/{name}").json()["objects"]
    assert [(one["object_name"], one["size_bytes"]) for one in objects] == [("a/b", 1)]
    assert cluster.client.delete(f"/system/buckets/{name}").status_code == 204


def test_upload_to_the_input_of_a_service_starts_its_job(cluster):
    name = f"box{next(_numbers)}"
    service = cluster.service(
        'tr a-z A-Z < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/loud.txt"',
        input=[{"storage_provider": "minio.default", "path": f"{name}/in"}],
        output=[{"storage_provider": "minio.default", "path": f"{name}/out"}],
    )
    cluster.s3.client().put_object(Bucket=name, Key="in/a.txt", Body=b"hello")
    wait_until(lambda: cluster.client.get(f"/system/logs/{service}").json()["jobs"], what="a job starts", timeout=120)
    (job,) = cluster.client.get(f"/system/logs/{service}").json()["jobs"]
    assert job.startswith(f"{service}-")
    assert cluster.until(service, job) == "Succeeded"
    assert cluster.s3.client().get_object(Bucket=name, Key="out/loud.txt")["Body"].read() == b"HELLO"


def test_synchronous_call_answers_what_the_script_printed_or_the_file_it_made(cluster):
    def call(script, **more):
        service = cluster.service(script, log_level="CRITICAL", **more)
        token = cluster.client.get(f"/system/services/{service}").json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{cluster.oscar.url}/run/{service}"
        return httpx.post(url, headers=headers, content=base64.b64encode(b"hello"), timeout=60)

    assert call('tr a-z A-Z < "$INPUT_FILE_PATH"').text.strip() == "HELLO"
    made = call('cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/a"')
    assert base64.b64decode(made.text) == b"hello"
    assert call("true", interlink_node_name="slurm-cpu").status_code == 502
    assert (
        httpx.post(f"{cluster.oscar.url}/run/nobody", headers={"Authorization": f"Bearer {'a' * 64}"}).status_code
        == 401
    )


def test_exposed_service_answers_stops_and_starts_again(cluster):
    number = free_port()
    serve = f'exec python3 -u -m http.server {number} --bind 127.0.0.1 --directory "$d"'
    program = f'd=$(mktemp -d); echo there > "$d/a"; {serve}'
    service = cluster.service(program, expose={"api_port": [number]})
    path = f"/system/services/{service}"

    def state():
        return cluster.client.get(f"{path}/deployment").json()["state"]

    wait_until(lambda: state() == "ready", what="the service answers", timeout=120)
    assert httpx.get(f"{cluster.oscar.url}{path}/exposed/a", timeout=30).text == "there\n"
    wait_until(lambda: cluster.client.get(f"{path}/deployment/logs").json()["entries"], what="it logs", timeout=120)
    assert cluster.client.post(f"{path}/stop").json()["state"] == "stopped"
    assert httpx.get(f"{cluster.oscar.url}{path}/exposed/a", timeout=30).status_code == 503
    cluster.client.post(f"{path}/start")
    wait_until(lambda: state() == "ready", what="the service answers again", timeout=120)
    assert cluster.client.delete(path).status_code == 204
    plain = cluster.service("true")
    assert cluster.client.post(f"/system/services/{plain}/stop").status_code == 400
    assert cluster.client.get(f"/system/services/{plain}/deployment").json()["state"] == "unavailable"


def test_job_of_a_federated_service_goes_to_the_member_when_there_is_no_room(cluster):
    other = f"member{next(_numbers)}"
    own = {
        "endpoint": cluster.oscar.url,
        "auth_user": cluster.oscar.username,
        "auth_password": cluster.oscar.password,
    }
    member = {"type": "oscar", "cluster_id": "b", "service_name": other, "priority": 0}
    service = cluster.service(
        "echo there",
        clusters={"b": {**own, "ssl_verify": False}},
        environment={"secrets": {"refresh_token": "r"}},
        federation={"group_id": "g", "members": [member]},
    )
    with cluster.faults.during(no_room=True):
        job = cluster.submit(service, "{}")
        wait_until(
            lambda: job in cluster.client.get(f"/system/logs/{other}").json()["jobs"], what="it is there", timeout=20
        )
    assert cluster.client.get(f"/system/logs/{service}").json()["jobs"] == {}
    assert cluster.until(other, job) == "Succeeded"


def test_secrets_on_disk_are_for_their_owner_only(cluster):
    private = [cluster.directory / "oscar/credentials.json", *Path(cluster.directory / "oscar/keys").iterdir()]
    private += (cluster.directory / "oscar/services").glob("*/*.yaml")
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


@pytest.mark.parametrize("name", ["a%0Ab", "a%0A", "%0A"])
def test_name_with_a_newline_is_answered_like_any_unknown_name(cluster, name):
    service = cluster.service("true")
    for path in ("/system/services/{}", f"/system/logs/{service}/{{}}", "/system/logs/{}"):
        known, hostile = (cluster.client.get(path.format(each)) for each in ("unknown", name))
        assert hostile.status_code == known.status_code, path
        assert hostile.headers.get("content-type") == known.headers.get("content-type"), path
    answers = [cluster.client.delete(f"/system/logs/{service}/{each}").status_code for each in ("unknown", name)]
    assert answers[0] == answers[1]
