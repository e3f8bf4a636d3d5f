# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' control plane: etcd and the three servers of :mod:`.kubernetes_build`, without root.

Everything listens on loopback and writes below one directory. The nodes are elsewhere: :mod:`.virtual_node`
and :mod:`.kubelet`.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import httpx

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.files import write_private
from oscar_testbed.process import LOOPBACK, Program, free_ports, wait_until
from oscar_testbed.programs import require_program
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.base import run

#: Made when the control plane is up; those of OSCAR have to be called so.
NAMESPACES = ("oscar", "oscar-svc")
#: A few seconds on an idle machine; a crowded one has been seen to need minutes.
_START_SECONDS = 400.0


class Etcd:
    """etcd, with what durability it has switched off."""

    name = "etcd"
    real = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_path = directory / "etcd.log"
        self.url = ""
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return run(["etcd", "--version"]).splitlines()[0].rpartition(" ")[2]

    def start(self) -> None:
        """Serve on free ports."""
        program = require_program("etcd", package="Debian's package etcd-server")
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        client, peer = (f"http://{LOOPBACK}:{port}" for port in free_ports(2))
        self.url = client
        command = [str(program), f"--data-dir={data}", "--unsafe-no-fsync", "--logger=zap"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += [f"--initial-cluster=default={peer}"]
        self._program = Program("etcd", command, log_path=self.log_path)
        self._program.start()
        wait_until(self.healthy, what="etcd is healthy", timeout=_START_SECONDS, program=self._program)

    def stop(self) -> None:
        """End it and forget its data: addresses of another run would be in it."""
        if self._program is not None:
            self._program.stop()
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def healthy(self) -> bool:
        """Ask its own health page."""
        return _answers(f"{self.url}/health", '"true"')


class ApiServer:
    """kube-apiserver with RBAC, one administrator's token and a kubeconfig for it."""

    name = "kube-apiserver"
    real = True

    def __init__(self, directory: Path, etcd: Etcd) -> None:
        self.directory = directory
        self.log_path = directory / "kube-apiserver.log"
        self.kubeconfig_path = directory / "kubeconfig.json"
        self.service_account_key = directory / "service-account.key"
        self.ca_path = directory / "certs" / "apiserver.crt"
        #: Certificate by which a kubelet knows the API server; its own authority.
        self.client_certificate = directory / "kubelet-client.crt"
        self.token = ""
        self.port = 0
        self._etcd = etcd
        self._program: Program | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def version(self) -> str:
        """What the server itself reports."""
        return str(self.client().get("/version").json()["gitVersion"]) if self.healthy() else ""

    def start(self) -> None:
        """Serve, and make the namespaces."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.port = free_ports(1)[0]
        self.token = secrets.token_urlsafe(24)
        tokens = self.directory / "tokens.csv"
        write_private(tokens, f'{self.token},admin,1,"system:masters"\n')
        if not self.service_account_key.exists():
            run(["openssl", "genrsa", "-out", str(self.service_account_key), "2048"])
        client_key = self.client_certificate.with_suffix(".key")
        if not self.client_certificate.exists():
            words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=kube-apiserver"]
            run(["openssl", "req", *words, "-keyout", str(client_key), "-out", str(self.client_certificate)])
        command = [
            str(_program("kube-apiserver")),
            f"--etcd-servers={self._etcd.url}",
            f"--cert-dir={self.directory}/certs",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.port}",
            *_without_insecure_port("--insecure-port=0"),
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.service_account_key}",
            f"--service-account-signing-key-file={self.service_account_key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={self.client_certificate}",
            f"--kubelet-client-key={client_key}",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
        ]
        self._program = Program("kube-apiserver", command, log_path=self.log_path)
        self._program.start()
        wait_until(self.healthy, what="kube-apiserver is ready", timeout=_START_SECONDS, program=self._program)
        write_private(self.kubeconfig_path, json.dumps(self.kubeconfig(), indent=1))
        with self.client() as client:
            for name in NAMESPACES:
                client.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.stop()

    def healthy(self) -> bool:
        """Ask its readiness page."""
        if not self.ca_path.exists():
            return False
        try:
            with self.client() as client:
                return client.get("/readyz").text == "ok"
        except (httpx.HTTPError, OSError):
            return False

    def client(self, **options: Any) -> httpx.Client:
        """A plain HTTP client with the administrator's token."""
        import ssl

        headers = {"Authorization": f"Bearer {self.token}"}
        context = ssl.create_default_context(cafile=str(self.ca_path))
        return httpx.Client(base_url=self.url, verify=context, headers=headers, trust_env=False, timeout=30, **options)

    def kubeconfig(self) -> dict[str, Any]:
        """A kubeconfig with the token in it."""
        authority = base64.b64encode(self.ca_path.read_bytes()).decode()
        cluster = {"server": self.url, "certificate-authority-data": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stack", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "stack", "context": {"cluster": "stack", "user": "admin", "namespace": "default"}}],
            "current-context": "stack",
        }

    def connection(self) -> dict[str, Any]:
        """The Airflow connection for it."""
        extra = {"kube_config": self.kubeconfig(), "namespace": "default", "verify_ssl": True}
        return {"conn_type": "interlink", "extra": extra}


class ControlLoop:
    """kube-scheduler or kube-controller-manager."""

    real = True

    def __init__(self, name: str, directory: Path, api: ApiServer, *arguments: str) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        self._api = api
        self._arguments = arguments
        self._directory = directory
        self._port = 0
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return kubernetes_build.version(_program(self.name))

    def start(self) -> None:
        """Run it as the only one of its kind."""
        self._port = free_ports(1)[0]
        command = [str(_program(self.name)), f"--kubeconfig={self._api.kubeconfig_path}", "--leader-elect=false"]
        command += [f"--bind-address={LOOPBACK}", f"--secure-port={self._port}"]
        command += _without_insecure_port("--port=0")
        command += [f"--cert-dir={self._directory / self.name}", *self._arguments]
        self._program = Program(self.name, command, log_path=self.log_path)
        self._program.start()
        wait_until(self.healthy, what=f"{self.name} is healthy", timeout=_START_SECONDS, program=self._program)

    def stop(self) -> None:
        """End it."""
        if self._program is not None:
            self._program.stop()

    def healthy(self) -> bool:
        """Ask its own health page; its certificate is made at each start and known to nobody."""
        return _answers(f"https://{LOOPBACK}:{self._port}/healthz", "ok")


class ControllerManager(ControlLoop):
    """kube-controller-manager: jobs, default service accounts, owned objects, node leases."""

    def __init__(self, directory: Path, api: ApiServer) -> None:
        words = [f"--service-account-private-key-file={api.service_account_key}"]
        words += [f"--root-ca-file={api.ca_path}", "--use-service-account-credentials=false"]
        # Of certificates that nodes ask for; nobody verifies them here.
        words += [f"--cluster-signing-cert-file={api.client_certificate}"]
        words += [f"--cluster-signing-key-file={api.client_certificate.with_suffix('.key')}"]
        super().__init__("kube-controller-manager", directory, api, *words)

    def start(self) -> None:
        """Run it, and wait for the service accounts without which no pod is accepted."""
        super().start()
        wait_until(self._accounts, what="every namespace has its service account", timeout=_START_SECONDS)

    def _accounts(self) -> bool:
        with self._api.client() as client:
            return all(
                client.get(f"/api/v1/namespaces/{name}/serviceaccounts/default").is_success
                for name in ("default", *NAMESPACES)
            )


def control_plane(directory: Path) -> tuple[Etcd, ApiServer, ControlLoop, ControllerManager]:
    """All four parts, in the order in which they start."""
    etcd = Etcd(directory / "etcd")
    api = ApiServer(directory / "kubernetes", etcd)
    scheduler = ControlLoop("kube-scheduler", directory / "kubernetes", api)
    return etcd, api, scheduler, ControllerManager(directory / "kubernetes", api)


def _program(name: str) -> Path:
    path = kubernetes_build.directory() / name
    if not path.is_file():
        raise MissingPrerequisite(
            f"{name} has not been built; `python -m oscar_testbed.real build` does it in a few minutes"
        )
    return path


def _without_insecure_port(flag: str) -> list[str]:
    """The flag that closes the port without TLS, where there still is one."""
    return [flag] if kubernetes_build.minor() < 24 else []


def _answers(url: str, text: str) -> bool:
    try:
        return (
            text in httpx.get(url, verify=False, timeout=5, trust_env=False).text
        )  # loopback, and no secret goes there
    except httpx.HTTPError:
        return False
