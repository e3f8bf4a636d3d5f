# SPDX-License-Identifier: Apache-2.0
"""Which OSCAR the embedded one behaves like: what each release has, renamed or answers in another form.

Read in the tags v3.3.0 to v4.1.2 of OSCAR (``main.go``, ``pkg/handlers``, ``pkg/types``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What the embedded OSCAR is if nobody asks for another.
NEWEST_OSCAR = "v4.1.2"
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")
#: Routes that came after 3.3, as method, path and release; a method of ``*`` is any.
_ROUTES_SINCE = tuple(
    (method, re.compile(path), since)
    for method, path, since in (
        ("GET", r"/system/buckets/[^/]+", (3, 6, 5)),
        ("*", r"/system/buckets/[^/]+/presign", (3, 6, 4)),
        ("*", r"/system/buckets.*", (3, 6, 0)),
        ("GET", r"/system/logs", (3, 6, 5)),
        ("*", r"/system/quotas/.*", (3, 7, 0)),
        ("PUT", r"/system/config", (4, 0, 0)),
        ("GET", r"/system/services/[^/]+/deployment(/logs)?", (4, 0, 0)),
        ("*", r"/system/volumes.*", (4, 0, 0)),
        ("*", r"/system/metrics.*", (4, 0, 0)),
        ("GET", r"/system/services/[^/]+/auth", (4, 1, 0)),
        ("POST", r"/system/services/[^/]+/(stop|start|restart)", (4, 1, 0)),
        ("*", r"/system/federation/.*", (4, 1, 0)),
    )
)
#: Fields of a definition, and the first release that knows each.
_FIELDS_SINCE = {
    "isolation_level": (3, 4, 0),
    "bucket_list": (3, 4, 0),
    "visibility": (3, 6, 0),
    "namespace": (3, 7, 0),
    "volume": (4, 0, 0),
    "volume_status": (4, 0, 0),
    "deployment": (4, 0, 0),
    "federation": (4, 1, 0),
    "kserve": (4, 1, 0),
    "ephemeral_storage_request": (4, 1, 0),
}
_EXPOSE_SINCE = {"health_path": (3, 7, 0), "probe_mode": (4, 0, 0), "auth_type": (4, 1, 0)}
#: What ``federation`` was before 4.1.
_BEFORE_FEDERATION = frozenset({"replicas", "delegation", "rescheduler_threshold"})


@dataclass(frozen=True)
class Release:
    """One release of OSCAR.

    :param number: its three numbers.
    """

    number: tuple[int, int, int]

    @classmethod
    def parse(cls, version: str) -> Release:
        """Read ``v4.1.2`` or ``3.6``.

        :raises ValueError: if it is not a version, or one before 3.3.
        """
        found = _VERSION.fullmatch(version)
        if found is None or (number := (int(found[1]), int(found[2]), int(found[3] or 0))) < (3, 3, 0):
            raise ValueError(
                f"{version!r} is not a release the embedded OSCAR can be; expected 3.3 or later, as 'v4.1.2'"
            )
        return cls(number)

    def has_route(self, method: str, path: str) -> bool:
        """Whether the release answers a request, or has no such route."""
        for wanted, pattern, since in _ROUTES_SINCE:
            if wanted in {"*", method} and pattern.fullmatch(path):
                return self.number >= since
        return True

    def knows(self, field: str) -> bool:
        """Whether a definition may have a field; others are dropped."""
        if field in _BEFORE_FEDERATION:
            return self.number < (4, 1, 0)
        return self.number >= _FIELDS_SINCE.get(field, (0, 0, 0))

    def exposes(self, field: str) -> bool:
        """The same for a field of ``expose``."""
        return self.number >= _EXPOSE_SINCE.get(field, (0, 0, 0))

    @property
    def variables_key(self) -> str:
        """Name of the variables of an environment."""
        return "variables" if self.number >= (3, 4, 0) else "Variables"

    @property
    def has_secrets(self) -> bool:
        """Whether an environment may have secret variables."""
        return self.number >= (3, 4, 0)

    @property
    def lists_ports(self) -> bool:
        """Whether ``api_port`` is a list; before it was one number."""
        return self.number >= (4, 1, 0)

    @property
    def takes_job_names(self) -> bool:
        """Whether ``X-Delegated-Job-ID`` chooses the name of a job."""
        return self.number >= (4, 1, 0)

    @property
    def wants_records(self) -> bool:
        """Whether ``/job`` fails for any body but an event with records."""
        return self.number < (3, 3, 1)

    @property
    def pages_jobs(self) -> bool:
        """Whether the job list has pages; before it was one map."""
        return self.number >= (3, 6, 4)

    @property
    def shows_suspended(self) -> bool:
        """Whether a job without a pod is listed as ``Suspended``; before it had an empty status, or was not listed."""
        return self.number >= (3, 7, 0)

    @property
    def refuses_used_buckets(self) -> bool:
        """Whether a bucket that exists stops a service, and goes away with it."""
        return self.number >= (3, 6, 0)

    @property
    def needs_folders(self) -> bool:
        """Whether a path that is a bucket alone breaks the server down, after it has made the service."""
        return (3, 6, 0) <= self.number < (4, 1, 0)

    @property
    def status_has_parts(self) -> bool:
        """Whether the status of the cluster has the parts cluster, oscar and minio."""
        return self.number >= (3, 7, 0)

    @property
    def config_fields(self) -> frozenset[str]:
        """Fields of the configuration."""
        known = {"name", "namespace", "services_namespace", "gpu_available", "interLink_available"}
        known |= {"serverless_backend", "yunikorn_enable"}
        if self.number >= (3, 6, 0):
            known |= {"oidc_groups"}
        if self.number >= (3, 7, 0):
            known |= {"kueue_enable"}
        if self.number >= (4, 0, 0):
            known |= {"controller_service_account", "volume_enable"}
        if self.number >= (4, 1, 0):
            known |= {"minio_quota_enabled"}
        return frozenset(known)


@dataclass
class OscarOptions:
    """How the embedded OSCAR is installed; may be changed while it runs.

    :param version: the release it behaves like, 3.3 or later.
    :param serverless: has a serverless backend, and so ``/run``.
    :param volumes: has managed volumes, and with them quotas.
    :param users: those who have logged in with a token, and so have a namespace with quotas.
    """

    version: str = NEWEST_OSCAR
    serverless: bool = True
    volumes: bool = True
    users: frozenset[str] = frozenset()

    @property
    def release(self) -> Release:
        """What that release does."""
        return Release.parse(self.version)

    def has_route(self, method: str, path: str) -> bool:
        """Whether this installation answers a request, or has no such route."""
        if not self.serverless and path.startswith("/run/"):
            return False
        if not self.volumes and path.startswith(("/system/volumes", "/system/quotas")):
            return False
        return self.release.has_route(method, path)
