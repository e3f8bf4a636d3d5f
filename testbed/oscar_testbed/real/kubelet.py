# SPDX-License-Identifier: Apache-2.0
"""A real node: kubelet, containerd and runc, with a bridge of its own. Needs root, and undoes what it changes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx

from oscar_testbed.errors import MissingPrerequisite
from oscar_testbed.process import Program, free_ports, wait_until
from oscar_testbed.programs import find_program
from oscar_testbed.real import kubernetes_build
from oscar_testbed.real.base import run
from oscar_testbed.real.control_plane import ApiServer
from oscar_testbed.real.images import image_archive
from oscar_testbed.real.undo_log import UndoLog, read_sysctl, remove_tree

NODE = "cloud"
PAUSE_IMAGE = "localhost/pause:1"
#: What kubelet sets on the whole machine.
_SYSCTLS = ("vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops", "net.ipv4.ip_forward")
_LINK, _BRIDGE = "oscar-stack0", "oscar-stack1"
#: The first block of RFC 5737 is for documentation and routed nowhere.
NETWORK = "192.0.2.0/24"
#: The node's own; pods reach this machine by it.
ADDRESS = "192.0.2.10"
_PODS = "192.0.2.128/25"
_CGROUP = "oscar-stack"
_CNI = Path("/usr/lib/cni")
_PAUSE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, reap); for (;;) pause(); }
"""


def missing() -> str:
    """What this machine lacks for a real node, in words; empty if nothing."""
    if os.geteuid() != 0:
        return "a kubelet needs root"
    programs = {
        "containerd": "containerd",
        "runc": "runc",
        "ctr": "containerd",
        "ip": "iproute2",
        "iptables": "iptables",
    }
    absent = {package for name, package in programs.items() if find_program(name) is None}
    if not (_CNI / "bridge").exists():
        absent.add("containernetworking-plugins")
    if find_program("cc") is None:
        absent.add("gcc")
    if absent:
        return f"install {', '.join(sorted(absent))}"
    if Path("/sys/class/net", _LINK).exists():
        return f"the node of another stack is up (network link {_LINK}); only one can be"
    return ""


class Containerd:
    """containerd with state, socket and network configuration of its own."""

    name = "containerd and runc"
    real = True

    def __init__(self, directory: Path, undo_log: UndoLog) -> None:
        self.directory = directory
        self.log_path = directory / "containerd.log"
        self.socket = directory / "containerd.sock"
        self._undo_log = undo_log
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return run(["containerd", "--version"]).split()[2]

    def start(self) -> None:
        """Serve, and load the image that holds a pod together."""
        if lack := missing():
            raise MissingPrerequisite(lack)
        self.directory.mkdir(parents=True, exist_ok=True)
        # What one that was killed left need not agree with itself; all images are loaded anew anyway.
        for left in ("root", "state"):
            remove_tree(self.directory / left)
        self._undo_log.note("mounts", str(self.directory))
        self._undo_log.note("link", _BRIDGE)
        self._undo_log.note("cgroup", _CGROUP)
        self._undo_log.note("shims", str(self.socket))
        config = self.directory / "config.toml"
        config.write_text(self._configuration())
        self._write_network()
        self._program = Program(
            "containerd", ["containerd", "--config", str(config)], log_path=self.log_path, env=_environment()
        )
        self._program.start()
        wait_until(self.healthy, what="containerd answers", timeout=60, program=self._program)
        self.load(image_archive(PAUSE_IMAGE, self._pause(), self.directory / "pause.tar", ["/pause"]))

    def stop(self) -> None:
        """End the containers that are left, and the daemon."""
        if self._program is None:
            return
        for task in self._ctr("task", "list", "--quiet").split():
            subprocess.run([*self._ctr_words(), "task", "kill", "--signal=9", task], capture_output=True, check=False)
        self._program.stop()

    def healthy(self) -> bool:
        """Ask for its version over its socket."""
        words = [*self._ctr_words(), "version"]
        return subprocess.run(words, capture_output=True, check=False, timeout=20).returncode == 0

    def load(self, archive: Path) -> None:
        """Load an image archive."""
        self._ctr("images", "import", str(archive), timeout=300)

    def _ctr_words(self) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", "k8s.io"]

    def _ctr(self, *words: str, timeout: float = 60.0) -> str:
        return run([*self._ctr_words(), *words], timeout=timeout)

    def _configuration(self) -> str:
        """Version 2 of the format; the score adjustment is refused where a capability is missing, as in containers."""
        return f"""
version = 2
root = "{self.directory}/root"
state = "{self.directory}/state"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI}"
    conf_dir = "{self.directory}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.directory}/opt"
"""

    def _write_network(self) -> None:
        folder = self.directory / "cni"
        folder.mkdir(exist_ok=True)
        bridge = {"type": "bridge", "bridge": _BRIDGE, "isGateway": True, "ipMasq": False}
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": _PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self.directory / "addresses"),
        }
        network = {"cniVersion": "0.4.0", "name": "oscar-stack", "plugins": [{**bridge, "ipam": ipam}]}
        (folder / "10-stack.conflist").write_text(json.dumps(network))

    def _pause(self) -> Path:
        root = self.directory / "pause"
        root.mkdir(exist_ok=True)
        source = self.directory / "pause.c"
        source.write_text(_PAUSE)
        run(["cc", "-Os", "-static", "-o", str(root / "pause"), str(source)])
        return root


class Kubelet:
    """kubelet as node ``cloud``.

    :param api: the running API server.
    :param containerd: the running container daemon.
    """

    name = "kubelet"
    real = True

    def __init__(self, directory: Path, api: ApiServer, containerd: Containerd, undo_log: UndoLog) -> None:
        self.directory = directory
        self.log_path = directory / "kubelet.log"
        self._api = api
        self._containerd = containerd
        self._undo_log = undo_log
        self._program: Program | None = None

    @property
    def version(self) -> str:
        """From the program."""
        return kubernetes_build.version(kubernetes_build.directory() / "kubelet")

    def start(self) -> None:
        """Register the node and wait until it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        root = self.directory / "pods"
        self._undo_log.note("mounts", str(root))
        for name in _SYSCTLS:
            self._undo_log.note("sysctl", name, read_sysctl(name))
        # A node's address may not be of the loopback range. Not every kernel has dummy links; bridges pods need anyway.
        self._undo_log.note("link", _LINK)
        run(["ip", "link", "add", _LINK, "type", "bridge"])
        run(["ip", "address", "add", f"{ADDRESS}/32", "dev", _LINK])
        run(["ip", "link", "set", _LINK, "up"])
        config = self.directory / "kubelet.json"
        port, health = free_ports(2)
        config.write_text(json.dumps(_configuration(port, health, self._api.client_certificate)))
        command = [
            str(kubernetes_build.directory() / "kubelet"),
            f"--config={config}",
            f"--kubeconfig={self._api.kubeconfig_path}",
            f"--root-dir={root}",
            f"--cert-dir={self.directory}/certs",
            f"--container-runtime-endpoint=unix://{self._containerd.socket}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            "--register-with-taints=",
        ]
        if kubernetes_build.minor() < 27:  # later ones know no other runtime
            command += ["--container-runtime=remote", f"--pod-infra-container-image={PAUSE_IMAGE}"]
        self._program = Program("kubelet", command, log_path=self.log_path, env=_environment())
        self._program.start()
        wait_until(self.healthy, what="the node is ready", timeout=120, program=self._program)

    def stop(self) -> None:
        """Take the pods and the node out of the cluster, then end it."""
        if self._program is None:
            return
        self._empty()
        self._program.stop()

    def healthy(self) -> bool:
        """Whether the API server has the node as Ready."""
        try:
            with self._api.client() as client:
                answer = client.get(f"/api/v1/nodes/{NODE}")
        except httpx.HTTPError:
            return False
        if answer.is_error:
            return False
        conditions = answer.json().get("status", {}).get("conditions") or []
        return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)

    def _empty(self) -> None:
        query = {"fieldSelector": f"spec.nodeName={NODE}"}
        with self._api.client() as client:

            def pods() -> list[dict[str, dict[str, str]]]:
                found: list[dict[str, dict[str, str]]] = client.get("/api/v1/pods", params=query).json()["items"]
                return found

            for pod in pods():
                meta = pod["metadata"]
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                client.request("DELETE", path, json={"gracePeriodSeconds": 1})
            wait_until(lambda: not pods(), what="the node's pods are gone", timeout=30)
            client.delete(f"/api/v1/nodes/{NODE}")


def _configuration(port: int, health: int, authority: Path) -> dict[str, object]:
    return {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": ADDRESS,
        "port": port,
        "healthzPort": health,
        # Only our API server may ask: a kubelet runs commands as root for whoever may.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "cgroupRoot": f"/{_CGROUP}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "nodeStatusUpdateFrequency": "2s",
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
