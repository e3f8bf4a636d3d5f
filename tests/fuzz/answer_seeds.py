# SPDX-License-Identifier: Apache-2.0
"""Right documents of what people write and systems answer, of which the fuzzer changes parts."""

from __future__ import annotations

from typing import Any

_SERVICE = {
    "name": "svc",
    "image": "i",
    "cpu": "1.0",
    "memory": "1Gi",
    "token": "t",
    "script": "#!/bin/sh",
    "log_level": "INFO",
    "environment": {"variables": {"A": "b"}, "secrets": {"K": ""}},
    "labels": {"a": "b"},
    "cluster_id": "c",
    "input": [{"storage_provider": "minio.default", "path": "in", "suffix": [".h5"]}],
    "output": [{"storage_provider": "minio.default", "path": "out"}],
    "storage_providers": {"minio": {"default": {"endpoint": "https://m", "access_key": "a", "secret_key": "s"}}},
    "annotations": {"a": "b"},
    "replicas": [{"type": "oscar", "cluster_id": "d", "service_name": "svc"}],
}
_JOB = {
    "status": "Succeeded",
    "creation_time": "2026-01-02T03:04:05Z",
    "start_time": "2026-01-02T03:04:06Z",
    "finish_time": "2026-01-02T03:05:00Z",
}
_FILE = {
    "fileType": "REGULAR",
    "size": 3,
    "mtime": 1767323045000,
    "creationTime": 1767323045000,
    "fileName": "a",
    "pnfsId": "0000ABCD",
    "fileLocality": "ONLINE",
    "checksums": [{"type": "ADLER32", "value": "0000abcd"}],
}

DOCUMENTS: dict[str, list[Any]] = {
    "fdl": [
        {
            "functions": {"oscar": [{"c": {key: value for key, value in _SERVICE.items() if key != "token"}}]},
            "storage_providers": _SERVICE["storage_providers"],
            "clusters": {"c": {"endpoint": "https://o", "auth_user": "u", "auth_password": "p", "ssl_verify": True}},
        }
    ],
    "job": [
        {
            "version": "1.0",
            "submission_id": "t-0123456789abcdef",
            "placement": "hpc",
            "submitted_at": "2026-01-02T03:04:05+00:00",
            "input": {
                "uri": "s3://in/a",
                "name": "a",
                "size": 3,
                "etag": "e",
                "url": "https://s3/in/a",
                "headers": {"A": "b"},
                "checksum": {"algorithm": "adler32", "value": "0000abcd"},
                "event": {"Records": []},
            },
            "output": {
                "uri": "s3://out/p/",
                "kind": "s3-post",
                "url": "https://s3/out",
                "fields": {"policy": "p"},
                "prefix": "p/",
            },
            "command": ["run", "it"],
            "environment": {"A": "b"},
            "timeout": 60.0,
            "max_output_bytes": 10,
            "inputs": [],
            "resume_from": [],
            "files": [],
            "signing_key": "00" * 32,
            "request_digest": "d",
        }
    ],
    "dcnios": [
        {
            "nifi": {
                "endpoint": "https://nifi",
                "user": "nifi",
                "password": "p",
                "Source": {kind: [source]},
                "Destination": {
                    "OSCAR": [
                        {"name": "invoke", "endpoint": "https://oscar", "service": "svc", "user": "u", "password": "p"}
                    ]
                },
                "connection": [{"from": source["name"], "to": "invoke"}],
            }
        }
        for kind, source in (
            (
                "dCache",
                {"name": "dcache", "endpoint": "https://d/api/v1", "user": "r", "password": "p", "folder": "/in"},
            ),
            ("Kafka", {"name": "kafka", "bootstrap_servers": "b:9093", "topic": "t", "group_id": "1"}),
            ("GetS3", {"name": "s3", "AWS_DEFAULT_REGION": "eu", "AWS_S3_BUCKET": "in"}),
        )
    ],
    "pod": [
        {
            "metadata": {
                "name": "p",
                "uid": "u",
                "labels": {"a": "b"},
                "annotations": {"slurm-job.vk.io/jobid": "17"},
                "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "spec": {"nodeName": "vk", "volumes": [{"name": "s", "secret": {"secretName": "p"}}]},
            "status": {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "m",
                "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "m"}}},
                    {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}},
                ],
            },
        }
    ],
    "node": [
        {
            "spec": {"unschedulable": False},
            "status": {"conditions": [{"type": "Ready", "status": "False", "message": "m"}]},
        }
    ],
    "oscar services": [[_SERVICE]],
    "oscar service": [_SERVICE],
    "oscar jobs": [{"jobs": {"svc-1": _JOB}, "next_page": "x", "remaining_jobs": 3}, {"svc-1": _JOB}],
    "oscar info": [{"version": "v4.1.2", "git_commit": "c", "serverless_backend": {"name": "Knative", "version": "1"}}],
    "oscar health": ["OK"],
    "dcache stat": [_FILE],
    "dcache children": [
        {**_FILE, "fileType": "DIR", "children": [_FILE, {**_FILE, "fileType": "DIR", "fileName": "b"}]}
    ],
    "dcache user": [
        {
            "status": "AUTHENTICATED",
            "uid": 1000,
            "gids": [1000],
            "username": "u",
            "rootDirectory": "/",
            "homeDirectory": "/h",
        }
    ],
    "dcache staged": [
        {
            "id": "x",
            "createdAt": 1,
            "startedAt": 2,
            "completedAt": 3,
            "files": [{"path": "/a", "finishedAt": 3, "startedAt": 2, "state": "COMPLETED", "error": ""}],
        }
    ],
    "rucio": [{"scope": "s", "name": "n", "bytes": 3, "adler32": "0000abcd", "guid": None, "events": None}],
    "rucio message": [
        {
            "event_type": "close",
            "created_at": "2026-01-02 03:04:05",
            "payload": {"scope": "s", "name": "d", "account": "a", "dids": [{"scope": "s", "name": "f"}]},
        }
    ],
    "own form": [
        {"files": [{"store": "b", "path": "/a b", "bytes": 3, "tag": "e", "at": 1767323045, "what": "created"}]},
    ],
    "entry": [
        {"name": "dir/a", "type": "file", "size": 3, "mtime": 1767323045.5, "ETag": '"e"'},
        {"name": "/dir/a", "type": "file", "size": 3, "modify": "20260102030405.5", "content_settings": {"md5": "e"}},
        {"name": "dir/b", "type": "directory", "islink": False, "size": 0, "date_time": [2026, 1, 2, 3, 4, 5]},
    ],
    "onedata": [
        {
            "children": [{"name": "a", "type": "REG", "size": 3, "mtime": 1767323045}, {"name": "b", "type": "DIR"}],
            "isLast": True,
            "nextPageToken": "t",
        }
    ],
    "kube config": [
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://h:6443", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
    ],
    "oscar-cli": [
        {
            "oscar": {
                "c": {
                    "endpoint": "https://o",
                    "auth_user": "u",
                    "auth_password": 17,
                    "ssl_verify": False,
                    "memory": "1",
                    "log_level": "INFO",
                },
                "d": {"endpoint": "https://o", "oidc_refresh_token": "e30.eyJpc3MiOiAiaHR0cHM6Ly9pIn0.x"},
                "e": {"endpoint": "https://o", "oidc_account_name": "a"},
            },
            "default": "c",
        }
    ],
    "slurm": [
        {
            "jobs": [
                {
                    "job_id": 17,
                    "name": "n",
                    "user_name": "u",
                    "job_state": ["PENDING"],
                    "partition": "p",
                    "comment": "c",
                    "state_reason": "Resources",
                    "start_time": {"set": True, "infinite": False, "number": 1767323045},
                    "submit_time": {"set": True, "number": 1767323045},
                    "node_count": {"set": True, "number": 1},
                }
            ],
            "errors": [],
            "meta": {},
        }
    ],
}

SEEDS: dict[str, list[bytes]] = {
    "fdl": [b"functions:\n  oscar:\n  - c:\n      name: a\n      image: i\n      script: |\n        true\n"],
    "supervisor-job": [b"{}", b"\0\x01"],
    "dcnios": [b"\0\x01\x02\x03"],
    "kubernetes": [b"\0\x01\x02\x03"],
    "oscar": [b"[]", b"\0\x01"],
    "dcache-frontend": [b"{}", b"\0\x01"],
    "headers": [b"\x03\0https://h/\xfc", b"\0\x02a=b; Path=/", b"\x07\x0399999999999999"],
    "rucio": [b'{"name": "a"}\n{}\n'],
    "slurm": [b'{"jobs": []}'],
    "channels": [b"[]", b"\0\x01", b'{"Records": []}'],
    "file-systems": [b"\0\x01", b"\x03\x02\x01\0"],
    "kube-config": [b"apiVersion: v1\nclusters: []\n", b"\0\x01"],
    "oscar-cli": [b"oscar:\n  c:\n    endpoint: https://o\n", b"\0\x01"],
    "stomp": [
        b"\x05CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0\n"
        b"MESSAGE\nsubscription:0\nmessage-id:1\ncontent-length:2\n\n{}\0"
    ],
}
