# SPDX-License-Identifier: Apache-2.0
"""Cloud jobs of the embedded OSCAR as pods of the real node: end, log, cancellation, and what a pod shows of a job."""

from __future__ import annotations

import json

import pytest
from oscar_testbed.fakes.oscar.jobs import Job
from oscar_testbed.process import wait_until
from oscar_testbed.real.cluster import kube_client
from oscar_testbed.real.images import tools_root
from oscar_testbed.real.kubelet import NODE
from oscar_testbed.real.oci import Registry, write_layout
from oscar_testbed.real.pod_runner import PodRunner

pytestmark = pytest.mark.slow
PATIENCE = 90.0


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A registry's reference of the image of the tests' jobs."""
    layout = tmp_path_factory.mktemp("image") / "layout"
    write_layout(tools_root(), layout, environment={"PATH": "/usr/bin:/bin"}, command=["python3"])
    registry = Registry({"tools": layout})
    registry.start()
    yield registry.reference("tools")
    registry.stop()


@pytest.fixture
def runner(site, tmp_path):
    with kube_client(site.kubeconfig) as client:
        if client.get(f"/api/v1/nodes/{NODE}").is_error:
            pytest.skip("the stack has no real node")
    runner = PodRunner(site.kubeconfig, NODE, tmp_path / "programs")
    runner.start(tmp_path)
    yield runner
    runner.stop()


@pytest.fixture
def make_job(tmp_path, image):
    """Makes a job as the embedded OSCAR does, of a service of its name with this script."""

    def make(name, script, **variables):
        place = tmp_path / name
        place.mkdir()
        definition = json.dumps({"name": name, "cpu": "0.5", "memory": "128Mi"})
        contents = {
            "/oscar/config/function_config.yaml": definition,
            "/oscar/config/script.sh": script,
            "/oscar/bin/supervisor": "",
            "/var/run/secrets/providers/minio.default/accessKey": "k",
        }
        binds = tuple((place / target.rpartition("/")[2], target) for target in contents)
        for path, target in binds:
            path.write_text(contents[target])
        environment = {"EVENT": '{"some":"event"}', "SUPERVISOR_STRICT": "1", **variables}
        return Job(name, name, environment, binds, image, place)

    return make


def status(runner, name):
    return runner.jobs(name)[name].status


def test_job_ends_as_its_script_does_and_leaves_its_log(runner, make_job):
    jobs = [make_job("job-good", 'echo "said $WORD"', WORD="$(WORD) $$ 'x'"), make_job("job-bad", "echo oh; exit 3")]
    for job in jobs:
        assert runner.submit(job)

    def ended():
        return all(status(runner, job.name) in {"Succeeded", "Failed"} for job in jobs)

    wait_until(ended, what="the jobs end", timeout=PATIENCE)
    assert [status(runner, job.name) for job in jobs] == ["Succeeded", "Failed"]
    assert b"said $(WORD) $$ 'x'" in runner.log(jobs[0])
    assert b"oh" in runner.log(jobs[1])
    assert not runner.submit(jobs[0]), "its name is taken"


def test_cancelled_job_is_killed_and_forgotten(runner, make_job, site):
    job = make_job("job-long", "sleep 300", SECRET="hidden-value")
    runner.submit(job)
    wait_until(lambda: status(runner, job.name) == "Running", what="the job runs", timeout=PATIENCE)
    with kube_client(site.kubeconfig) as client:
        pod = client.get(f"/api/v1/namespaces/oscar-svc/pods/{job.name}")
        assert "hidden-value" not in pod.text
        runner.remove(job.name)
        assert not runner.taken(job.name)

        def gone():
            return client.get(f"/api/v1/namespaces/oscar-svc/pods/{job.name}").status_code == 404

        wait_until(gone, what="the pod is gone", timeout=PATIENCE)
        assert client.get(f"/api/v1/namespaces/oscar-svc/secrets/{job.name}").status_code == 404
