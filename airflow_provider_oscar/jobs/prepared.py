# SPDX-License-Identifier: Apache-2.0
"""One job, ready for a pod or for OSCAR; :mod:`.builder` prepares it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.pods import SECRET_MOUNT_PATH, InitContainer
from airflow_provider_oscar.jobs.spec import JobSpec

#: The body of ``POST /job`` becomes one variable, on interLink nodes once more in base64.
JOB_BODY_LIMIT = 98_298


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """One job, ready for a pod (the fields of ``PodRequest`` of the same names) or for OSCAR (:meth:`body`).

    :param spec: the job specification; with ``mode="faas-supervisor"`` without any capability.
    :param secret: contents of the Secret that is mounted whole at ``secret_mount_path``.
    :param command: of the container.
    :param args: of the container.
    :param env: of the container; holds no secret.
    :param empty_dirs: volume name to mount path.
    :param init_containers: run before, and share ``empty_dirs``.
    :param secret_mount_path: where the supervisor looks for its secret.
    """

    spec: JobSpec
    secret: Mapping[str, str] = field(repr=False)
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    empty_dirs: Mapping[str, str] = field(default_factory=dict)
    init_containers: tuple[InitContainer, ...] = ()
    secret_mount_path: str = SECRET_MOUNT_PATH

    @property
    def output_uri(self) -> str:
        """Where outputs and manifest will be, submission id included."""
        return self.spec.output.uri

    def body(self, seal: Callable[[bytes], bytes] | None) -> bytes:
        """Return the body of OSCAR's ``POST /job`` for a service that runs :func:`~.start_script.service_script`.

        :param seal: makes the specification unreadable for all but the job, see :mod:`.sealing`; None for a server
            that has no secrets.
        :raises DefinitionError: if it does not fit the variable OSCAR puts it into.
        """
        document = self.spec.to_json().encode()
        data = base64.b64encode(document if seal is None else seal(document))
        if len(data) > JOB_BODY_LIMIT:
            raise DefinitionError(
                f"the specification of job {self.spec.submission_id!r} takes {len(data)} bytes, OSCAR can pass "
                f"{JOB_BODY_LIMIT}; shorten command or environment, or read them from an object"
            )
        return data
