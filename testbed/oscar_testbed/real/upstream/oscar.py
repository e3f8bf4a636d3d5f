# SPDX-License-Identifier: Apache-2.0
"""OSCAR's server as a program, made to believe that it runs inside the cluster."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from oscar_testbed.process import LOOPBACK, Program, free_port, wait_until
from oscar_testbed.programs import find_program
from oscar_testbed.real.upstream.minio import MinIO
from oscar_testbed.real.upstream.programs import require

USERNAME = "oscar"
SERVICES = "oscar-svc"
_LABELS = {"app.kubernetes.io/managed-by": "system-tests"}


class Oscar:
    """The server, over a Kubernetes that is reached with a token, and a MinIO.

    It knows only the way of a pod to its cluster: a token below ``/var/run/secrets`` and two variables. So it
    gets a mount namespace with a ``/run`` of its own. It listens on every interface; where iptables is there,
    a rule keeps other machines out while it runs.

    :param directory: token, certificate and log.
    :param kubeconfig: with a bearer token and the certificate of the API server.
    :param minio: the store; must run.
    :param kit_image: image with the FaaS Supervisor for virtual nodes.
    :param settings: further environment variables of the server.
    """

    name = "OSCAR"
    real = True

    def __init__(  # noqa: PLR0917 - the parts in the order of the stack
        self,
        directory: Path,
        kubeconfig: Mapping[str, Any],
        minio: MinIO,
        kit_image: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        (program,) = require("oscar")
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = dict(settings or {})
        self.password = settings.setdefault("OSCAR_PASSWORD", secrets.token_urlsafe(24))
        self.port = free_port()
        self.log_path = self.directory / "oscar.log"
        self._kubeconfig = kubeconfig
        self._minio = minio
        self._rule = contextlib.ExitStack()
        server = urlsplit(kubeconfig["clusters"][0]["cluster"]["server"])
        account = self._account()
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && "
            f"cp -r {shlex.quote(str(account))} /run/secrets/kubernetes.io/serviceaccount && "
            f"exec {shlex.quote(str(program))}"
        )
        self._program = Program(
            "OSCAR",
            ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
            log_path=self.log_path,
            cwd=self.directory,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.directory),
                "GIN_MODE": "release",
                "KUBERNETES_SERVICE_HOST": str(server.hostname),
                "KUBERNETES_SERVICE_PORT": str(server.port),
                "OSCAR_USERNAME": USERNAME,
                "OSCAR_SERVICE_PORT": str(self.port),
                "MINIO_ACCESS_KEY": minio.access_key,
                "MINIO_SECRET_KEY": minio.secret_key,
                "MINIO_ENDPOINT": minio.url,
                "MINIO_TLS_VERIFY": "true",
                "SERVERLESS_BACKEND": "",
                "KUEUE_ENABLE": "false",
                "VOLUME_ENABLE": "false",
                "OIDC_ENABLE": "false",
                "SUPERVISOR_KIT_IMAGE": kit_image,
                "JOB_LISTING_LIMIT": "5",
                **settings,
            },
        )

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://{LOOPBACK}:{self.port}"

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it; holds the password."""
        return {"conn_type": "oscar", "host": self.url, "login": USERNAME, "password": self.password}

    def start(self) -> None:
        """Make what a cluster administrator would have made, start the server, wait until it answers.

        Virtual nodes must be there before: it looks for them once.
        """
        self._prepare()
        self._rule.enter_context(_only_this_machine(self.port))
        self._program.start()
        wait_until(self.healthy, what="OSCAR answers", timeout=60, program=self._program)

    def stop(self) -> None:
        """End it."""
        self._program.stop()
        self._rule.close()

    def kill(self) -> None:
        """End it as a crash does."""
        self._program.kill()
        self._rule.close()

    def healthy(self) -> bool:
        """Whether it answers now."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).text == "Ok"
        except httpx.HTTPError:
            return False

    def _account(self) -> Path:
        """A service account's directory made from the kubeconfig."""
        account = self.directory / "account"
        account.mkdir(mode=0o700, exist_ok=True)
        (account / "token").write_text(self._kubeconfig["users"][0]["user"]["token"])
        cluster = self._kubeconfig["clusters"][0]["cluster"]
        if data := cluster.get("certificate-authority-data"):
            (account / "ca.crt").write_bytes(base64.b64decode(data))
        elif path := cluster.get("certificate-authority"):
            (account / "ca.crt").write_bytes(Path(path).read_bytes())
        return account

    def _prepare(self) -> None:
        from kubernetes import client, config
        from kubernetes.client.exceptions import ApiException

        api = client.CoreV1Api(config.new_client_from_config_dict(json.loads(json.dumps(self._kubeconfig))))
        keys = {"accessKey": self._minio.access_key, "secretKey": self._minio.secret_key}
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
        }
        wanted: tuple[Callable[[], object], ...] = (
            lambda: api.create_namespace({"metadata": {"name": "oscar", "labels": _LABELS}}),
            lambda: api.create_namespace({"metadata": {"name": SERVICES, "labels": _LABELS}}),
            lambda: api.create_namespaced_secret(SERVICES, {"metadata": {"name": "minio"}, "stringData": keys}),
            lambda: api.create_namespaced_persistent_volume_claim(
                SERVICES, {"metadata": {"name": "oscar-pvc"}, "spec": claim}
            ),
        )
        for make in wanted:
            try:
                make()
            except ApiException as error:
                if error.status != 409:
                    raise
        api.api_client.rest_client.pool_manager.clear()


@contextlib.contextmanager
def _only_this_machine(port: int) -> Iterator[None]:
    """Refuse what other machines send to a port, where that can be told to the kernel."""
    program = find_program("iptables")
    rule = ["INPUT", "-p", "tcp", "--dport", str(port), "!", "-i", "lo", "-j", "REJECT"]
    set_up = program is not None and not subprocess.run([program, "-I", *rule], check=False).returncode
    try:
        yield
    finally:
        if set_up and program:
            subprocess.run([program, "-D", *rule], check=False)
