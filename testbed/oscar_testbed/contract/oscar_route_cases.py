# SPDX-License-Identifier: Apache-2.0
"""Conversations with OSCAR about its cluster, and about what a service has besides jobs and buckets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oscar_testbed.contract.oscar import OscarRecorder

#: A day in which nothing was called, so that its numbers are the same everywhere.
_LONG_AGO = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
_MEMBER = {"type": "oscar", "cluster_id": "there", "service_name": "shared", "priority": 1}


def allowed_images(recorder: OscarRecorder) -> None:
    """Which images services may use."""
    path = "/system/config"

    def allow(note: str, **body: Any) -> None:
        recorder.ask("PUT", path, note=note, json=body)
        found = recorder.client.get(path).json()["allowed_image_repositories"]
        recorder.notes.append({"asked": f"allowed after {note}", "status": 200, "type": "", "body": found})

    allow("one part", allowed_image_repositories=["ghcr.io/grycap"])
    recorder.ask("POST", "/system/services", note="image that is not allowed", json=recorder.service("pictured"))
    recorder.ask("GET", "/system/services/pictured", note="refused")
    allow("two parts", allowed_image_repositories=["ghcr.io/grycap", recorder.image])
    recorder.ask("POST", "/system/services", note="image that is allowed", json=recorder.service("pictured"))
    recorder.ask("DELETE", "/system/services/pictured", keep=False)
    allow("no parts", allowed_image_repositories=[])
    allow("nothing said")
    recorder.ask("PUT", path, note="no JSON", content=b"{")
    recorder.ask("PUT", path, note="not authorised", auth=None, json={})


def who_may_call(recorder: OscarRecorder) -> None:
    """What a proxy before an exposed service asks."""
    token, path = recorder.made("gated"), "/system/services/gated/auth"
    recorder.ask("GET", path, note="the administrator")
    recorder.ask("GET", path, note="nobody", auth=None)
    recorder.ask("GET", path, note="wrong password", auth=("oscar", "wrong"))
    for note, sent in (("its token", token), ("another token", "b" * 64), ("a short token", "abc")):
        recorder.ask("GET", path, note=note, auth=None, headers={"Authorization": f"Bearer {sent}"})
        recorder.ask("GET", path, note=f"{note} as a parameter", auth=None, params={"token": sent})
    recorder.ask("GET", "/system/services/nobody/auth", note="unknown service")
    recorder.ask("GET", "/system/services/nobody/auth", note="unknown service, nobody", auth=None)
    recorder.remove("gated")


def deployments(recorder: OscarRecorder) -> None:
    """What a service that is not exposed says of its deployment."""
    recorder.made("plain")
    for name in ("plain", "nobody", "Not_A_Name", "-not-a-name"):
        path = f"/system/services/{name}"
        recorder.ask("GET", f"{path}/deployment")
        recorder.ask("GET", f"{path}/deployment/logs")
        for action in ("stop", "start", "restart"):
            recorder.ask("POST", f"{path}/{action}")
    recorder.ask("GET", "/system/services/plain?include=deployment")
    recorder.ask("GET", "/system/services/plain/deployment/logs?tailLines=nonsense&timestamps=nonsense")
    recorder.remove("plain")


def federation(recorder: OscarRecorder) -> None:
    """Members of a service without a refresh token, which cannot be told of anything."""
    path = "/system/federation/shared"
    recorder.made("shared")
    recorder.ask("GET", path, note="none")
    recorder.ask("POST", path, note="no JSON", content=b"{")
    recorder.ask("POST", path, note="members as text", json={"members": "there"})
    recorder.ask("POST", path, note="a member", json={"members": [_MEMBER]})
    recorder.ask("GET", path, note="after a member")
    recorder.ask("PUT", path, note="priority", json={"members": [_MEMBER], "update": [_MEMBER | {"priority": 2}]})
    recorder.ask("GET", path, note="after the priority")
    recorder.ask("PUT", path, note="no update", json={"members": [_MEMBER]})
    recorder.ask("DELETE", path, note="another member", json={"members": [_MEMBER | {"cluster_id": "elsewhere"}]})
    recorder.ask("GET", path, note="after another member")
    recorder.ask("DELETE", path, note="the member", json={"members": [_MEMBER | {"type": "OSCAR"}]})
    recorder.ask("GET", path, note="after all")
    clusters = {
        "there": {"endpoint": "http://127.0.0.1:9", "auth_user": "u", "auth_password": "p", "ssl_verify": False}
    }
    recorder.ask("POST", path, note="clusters", json={"clusters": clusters})
    found = recorder.client.get("/system/services/shared").json()
    recorder.notes.append({"asked": "its clusters", "status": 200, "type": "", "body": found.get("clusters")})
    for method in ("GET", "POST", "PUT", "DELETE"):
        recorder.ask(method, "/system/federation/nobody", json={"members": [_MEMBER]})
    member = recorder.service("joined", federation={"group_id": "g", "topology": "star", "members": [_MEMBER]})
    recorder.ask("POST", "/system/services", note="federated without a refresh token", json=member)
    recorder.ask("GET", "/system/services/joined")
    recorder.remove("joined")
    recorder.remove("shared")


def synchronous_calls(recorder: OscarRecorder) -> None:
    """Calls that wait for their answer, where there is no serverless backend."""
    token = recorder.made("called")
    headers = {"Authorization": f"Bearer {token}"}
    recorder.ask("POST", "/run/called", note="its token", auth=None, headers=headers, content=b"aGVsbG8=")
    recorder.ask("POST", "/run/called", note="nobody", auth=None, content=b"{}")
    recorder.ask("GET", "/run/called", note="another method")
    recorder.ask("POST", "/run/nobody", note="unknown service", content=b"{}")
    recorder.remove("called")


def refused_federations(recorder: OscarRecorder) -> None:
    """Federated services whose members cannot be asked, of which nothing is made."""
    secrets = {"secrets": {"refresh_token": "r"}}
    group = {"group_id": "g", "topology": "star", "members": [_MEMBER]}
    for note, clusters in (
        ("a cluster that is not defined", {}),
        ("a cluster without an address", {"there": {"endpoint": ""}}),
        ("another login", {"there": {"endpoint": "http://127.0.0.1:9", "auth_user": "u", "auth_password": "p"}}),
    ):
        sent = recorder.service("joined", federation=group, clusters=clusters, environment=secrets)
        recorder.ask("POST", "/system/services", note=note, json=sent)
    recorder.ask("GET", "/system/services/joined", note="after all")
    other = group | {"members": [{"type": "endpoint", "url": "http://127.0.0.1:9"}]}
    sent = recorder.service("joined", federation=other, environment=secrets)
    recorder.ask("POST", "/system/services", note="a member that is no OSCAR", json=sent)
    recorder.ask("GET", "/system/services/joined", note="with a member that is no OSCAR")
    recorder.remove("joined")


def metrics(recorder: OscarRecorder) -> None:
    """Metrics of a day without calls, and what is refused."""
    recorder.made("counted")
    one = "/system/metrics/counted"
    for path in ("/system/metrics", one):
        recorder.ask("GET", path, params=_LONG_AGO)
        recorder.ask("GET", path, note="no time", params={"start": "yesterday"})
        recorder.ask("GET", path, note="no end", params={"end": "yesterday"})
        backwards = {"start": _LONG_AGO["end"], "end": _LONG_AGO["start"]}
        recorder.ask("GET", path, note="backwards", params=backwards)
    for metric in ("cpu-hours", "gpu-hours", "requests-async-per-service", "users-per-service", "services-count"):
        recorder.ask("GET", one, note=metric, params=_LONG_AGO | {"metric": metric})
    recorder.ask("GET", one, note="no such metric", params=_LONG_AGO | {"metric": "weight"})
    recorder.ask("GET", "/system/metrics/nobody", params=_LONG_AGO)
    path = "/system/metrics/breakdown"
    recorder.ask("GET", path, note="by nothing", params=_LONG_AGO)
    for by in ("service", "user", "country", "weather"):
        recorder.ask("GET", path, note=f"by {by}", params=_LONG_AGO | {"group_by": by})
    table = _LONG_AGO | {"group_by": "service", "format": "csv"}
    recorder.ask("GET", path, note="as a table", params=table)
    recorder.ask("GET", path, note="with users", params=_LONG_AGO | {"group_by": "service", "include_users": "true"})
    recorder.ask("GET", path, note="table with users", params=table | {"include_users": "true"})
    recorder.ask("GET", path, note="no such format", params=table | {"format": "xml"})
    recorder.remove("counted")


def changed_buckets(recorder: OscarRecorder) -> None:
    """Changes of buckets, which have no owner but the administrator."""
    path = "/system/buckets"
    recorder.ask("POST", path, json={"bucket_name": "chest", "visibility": "private"})
    for visibility in ("public", "restricted", "private", "secret"):
        body = {"bucket_name": "chest", "visibility": visibility, "allowed_users": ["somebody"]}
        recorder.ask("PUT", path, note=visibility, json=body)
        recorder.ask("GET", f"{path}/chest", note=f"after {visibility}")
    recorder.ask("PUT", path, note="no such bucket", json={"bucket_name": "nobody", "visibility": "private"})
    recorder.ask("PUT", path, note="no name", json={})
    recorder.ask("PUT", path, note="no JSON", content=b"{")
    recorder.ask("DELETE", f"{path}/chest", keep=False)


def volumes(recorder: OscarRecorder) -> None:
    """Managed volumes, by themselves and of a service."""
    path = "/system/volumes"
    recorder.ask("GET", path, note="none")
    for note, body in (
        ("no name", {"size": "1Gi"}),
        ("no size", {"name": "disk"}),
        ("bad name", {"name": "A_B", "size": "1Gi"}),
        ("bad size", {"name": "disk", "size": "big"}),
        ("no size at all", {"name": "disk", "size": "0"}),
        ("less than nothing", {"name": "disk", "size": "-1Gi"}),
        ("a volume", {"name": "disk", "size": "1Gi"}),
        ("again", {"name": "disk", "size": "2Gi"}),
    ):
        recorder.ask("POST", path, note=note, json=body)
    recorder.ask("POST", path, note="no JSON", content=b"{")
    recorder.ask("GET", path)
    recorder.ask("GET", f"{path}/disk")
    recorder.ask("GET", f"{path}/nobody")
    mounted: dict[str, Any] = {"volume": {"name": "disk", "mount_path": "/vol"}}
    recorder.ask("POST", "/system/services", note="with the volume", json=recorder.service("kept", **mounted))
    recorder.ask("GET", "/system/services/kept", note="with the volume")
    recorder.ask("GET", f"{path}/disk", note="in use")
    recorder.ask("DELETE", f"{path}/disk", note="in use")
    recorder.ask(
        "PUT",
        "/system/services",
        note="another path",
        json=recorder.service("kept", volume={"name": "disk", "mount_path": "/d"}),
    )
    recorder.ask("DELETE", "/system/services/kept", keep=False)
    for note, volume in (
        ("a path of virtual nodes'", {"name": "disk", "mount_path": "/data"}),
        ("unknown volume", {"name": "absent", "mount_path": "/vol"}),
        ("no path", {"name": "disk"}),
        ("relative path", {"name": "disk", "mount_path": "data"}),
        ("bad size", {"size": "big", "mount_path": "/vol"}),
        ("bad policy", {"size": "1Gi", "mount_path": "/vol", "lifecycle_policy": "burn"}),
        ("policy without a size", {"name": "disk", "mount_path": "/vol", "lifecycle_policy": "retain"}),
        ("bad name", {"name": "A_B", "mount_path": "/vol"}),
        ("a path of OSCAR's", {"name": "disk", "mount_path": "/oscar/config/x"}),
        ("a volume that is there, with a size", {"name": "disk", "size": "1Gi", "mount_path": "/vol"}),
    ):
        recorder.ask("POST", "/system/services", note=note, json=recorder.service("refused", volume=volume))
        recorder.ask("DELETE", "/system/services/refused", note=note)
    own = {"size": "1Gi", "mount_path": "/vol"}
    recorder.ask("POST", "/system/services", note="its own volume", json=recorder.service("kept", volume=own))
    recorder.ask("GET", "/system/services/kept", note="its own volume")
    recorder.ask("GET", f"{path}/kept", note="made by the service")
    recorder.ask("DELETE", "/system/services/kept", keep=False)
    recorder.ask("GET", f"{path}/kept", note="gone with the service")
    recorder.ask("DELETE", f"{path}/disk")
    recorder.ask("DELETE", f"{path}/disk", note="again")
    _without_phases(recorder.notes)


def _without_phases(found: Any) -> None:
    """Whether a volume that nobody uses is ready depends on the cluster's storage, not on OSCAR."""
    if isinstance(found, list):
        for each in found:
            _without_phases(each)
    elif isinstance(found, dict):
        if found.get("phase") in ("pending", "ready"):
            found["phase"] = "<not in use>"
        for each in found.values():
            _without_phases(each)


def quotas(recorder: OscarRecorder) -> None:
    """What users may have where there is no Kueue: the administrator, and one who has never logged in."""
    recorder.ask("GET", "/system/quotas/user")
    for name in ("cluster_admin", "somebody"):
        user = f"/system/quotas/user/{name}"
        recorder.ask("GET", user)
        limits = {"disk": "9Gi", "volumes": "3", "max_disk_per_volume": "2Gi", "min_disk_per_volume": "1Gi"}
        for note, body in (
            ("nothing", {}),
            ("processors", {"cpu": "2"}),
            ("volumes", {"volumes": limits}),
            ("one limit", {"volumes": {"volumes": "4"}}),
            ("no quantity", {"volumes": {"disk": "lots"}}),
            ("no quantity for a volume", {"volumes": {"max_disk_per_volume": "lots"}}),
            ("buckets", {"minio": {"buckets": "2", "storage_per_bucket": "1Gi"}}),
            ("buckets as a word", {"minio": {"buckets": "two"}}),
            ("buckets below nothing", {"minio": {"buckets": "-1"}}),
            ("no store quantity", {"minio": {"storage_per_bucket": "lots"}}),
            ("volumes as text", {"volumes": "all"}),
        ):
            recorder.ask("PUT", user, note=note, json=body)
        recorder.ask("PUT", user, note="no JSON", content=b"{")
        recorder.ask("GET", user, note="changed")


#: Conversations by name; the second group needs an OSCAR that has volumes.
ROUTES: tuple[tuple[str, Callable[[OscarRecorder], None]], ...] = (
    ("allowed images", allowed_images),
    ("who may call", who_may_call),
    ("deployments", deployments),
    ("federation", federation),
    ("refused federations", refused_federations),
    ("synchronous calls", synchronous_calls),
    ("metrics", metrics),
    ("changed buckets", changed_buckets),
)
VOLUME_ROUTES: tuple[tuple[str, Callable[[OscarRecorder], None]], ...] = (("volumes", volumes), ("quotas", quotas))
