# SPDX-License-Identifier: Apache-2.0
"""Calls every method of oscar-python once, in the order a user would, and prints what came of each as JSON.

A program for the Python that has oscar-python; it imports nothing of this repository. Its arguments: endpoint, user,
password, a folder, and for jobs on a virtual node its image and name.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from oscar_python.client import Client

ENDPOINT, USER, PASSWORD, FOLDER = sys.argv[1:5]
IMAGE, NODE = sys.argv[5:7] or ("tools:1", "")
SCRIPT = "#!/bin/sh\nprintf 'moo '; cat \"$INPUT_FILE_PATH\"\n"
FDL = f"""functions:
  oscar:
  - embedded:
      name: cow
      image: {IMAGE}
      interlink_node_name: '{NODE}'
      memory: 256Mi
      cpu: '1.0'
      log_level: CRITICAL
      script: cow.sh
      input:
      - {{storage_provider: minio.default, path: cow/in}}
      output:
      - {{storage_provider: minio.default, path: cow/out}}
"""
MEMBER = {"type": "oscar", "cluster_id": "b", "service_name": "cow"}


def main() -> None:
    """Have the conversation."""
    client = Client({"cluster_id": "embedded", "endpoint": ENDPOINT, "user": USER, "password": PASSWORD, "ssl": False})
    results: dict[str, str] = {}

    def call(name: str, *arguments: object, label: str = "", **options: object) -> object:
        method: Callable[..., object] = getattr(client, name)
        try:
            answer = method(*arguments, **options)
            results[label or name] = str(getattr(answer, "status_code", answer))
        except Exception as error:  # noqa: BLE001 - whatever it raises is the result
            answer, status = None, getattr(getattr(error, "response", None), "status_code", "")
            results[label or name] = str(status or f"{type(error).__name__}: {error}")
        return answer

    with open(f"{FOLDER}/cow.sh", "w") as file:
        file.write(SCRIPT)
    with open(f"{FOLDER}/cow.yaml", "w") as file:
        file.write(FDL)
    for name in ("health_check", "get_cluster_info", "get_cluster_config", "get_cluster_status"):
        call(name)
    call("create_service", f"{FOLDER}/cow.yaml")
    definition = call("get_service", "cow").json()  # type: ignore[attr-defined]
    call("list_services")
    call("update_service", "cow", {**definition, "memory": "128Mi"})
    answer = call("run_service", "cow", input="hello", label="run_service (sync)")
    results["answer"] = getattr(answer, "text", "").strip()
    call("run_service", "cow", input="hello", async_call=True, label="run_service (async)")
    jobs: dict[str, dict[str, str]] = {}
    end = time.monotonic() + 120
    while time.monotonic() < end and not any(job["status"] == "Succeeded" for job in jobs.values()):
        jobs = call("list_jobs", "cow").json()["jobs"]  # type: ignore[attr-defined]
        time.sleep(0.3)
    results["log"] = getattr(call("get_job_logs", "cow", next(iter(jobs), "")), "text", "").strip()
    storage = client.create_storage_client("cow")
    storage.upload_file("minio.default", f"{FOLDER}/cow.sh", "cow/in")
    listed = storage.list_files_from_path("minio.default", "cow/in")
    results["storage"] = json.dumps(sorted(each["Key"] for each in listed["Contents"]))
    call("remove_job", "cow", next(iter(jobs), ""))
    call("remove_all_jobs", "cow")
    call("get_deployment_status", "cow")
    call("get_deployment_logs", "cow")
    call("create_volume", "data", "1Gi")
    for name in ("list_volumes", "list_buckets", "get_system_logs", "get_metrics_summary", "get_metrics_breakdown"):
        call(name)
    call("get_volume", "data")
    call("delete_volume", "data")
    call("create_bucket", "shelf")
    call("update_bucket", "shelf", "public")
    call("get_bucket", "shelf")
    call("presign_bucket", "shelf", "a", "upload")
    call("delete_bucket", "shelf")
    call("get_service_metrics", "cow")
    call("get_own_quota")
    call("get_user_quota", "ann")
    call("update_user_quota", "ann", "1", "1Gi")
    call("get_federation", "cow")
    call("add_federation_members", "cow", [MEMBER])
    call("update_federation_members", "cow", [MEMBER], [{**MEMBER, "priority": 1}])
    call("remove_federation_members", "cow", [MEMBER])
    call("remove_service", "cow")
    json.dump(results, sys.stdout)


main()
