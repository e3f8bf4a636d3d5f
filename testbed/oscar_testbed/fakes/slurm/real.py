# SPDX-License-Identifier: Apache-2.0
"""A private SLURM cluster of the programs that are installed or named: munged, slurmctld, three slurmd.

It runs as whoever starts it (root is not needed), on free ports of the loopback interface and with every
file below one directory, so that any number of them can run beside a site's own SLURM.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from oscar_testbed import strays
from oscar_testbed.errors import MissingPrerequisite, PlatformError, RejectedError, quoted
from oscar_testbed.fakes.slurm import programs
from oscar_testbed.fakes.slurm.batch import PARTITIONS, BatchJob, Partition
from oscar_testbed.fakes.slurm.commands import (
    cancel_command,
    jobs_command,
    parse_jobs,
    parse_submit,
    submit_command,
)
from oscar_testbed.files import write_private
from oscar_testbed.process import Program, free_ports, wait_until

#: Programs without which there is no private cluster.
PROGRAMS = ("sbatch", "squeue", "scancel", "sinfo", "slurmctld", "slurmd", "munged")
#: Names of the nodes, the partition they belong to and the fake GPUs they have.
NODES = (("cn1", "cpu", 0), ("cn2", "cpu", 0), ("gn1", "gpu", 2))
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
#: Seconds in which slurmctld has written down what changed.
_SAVED_WITHIN = 8.0
#: How often it is asked to, while jobs keep changing.
_SAVES = 5
#: Release from which on slurmd does without control groups; earlier ones load a plugin for them in any case.
_WITHOUT_CGROUPS = (23, 2)


def missing_programs() -> tuple[str, ...]:
    """Those of :data:`PROGRAMS` that are not installed."""
    return programs.missing(PROGRAMS)


def configuration(
    directory: Path, *, user: str, host: str, ports: Sequence[int], settings: Mapping[str, str] | None = None
) -> str:
    """Text of ``slurm.conf``.

    :param ports: slurmctld's and one per node of :data:`NODES`.
    :param settings: parameters that are added, or replace ours.
    """
    general = {
        "ClusterName": "embedded",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(ports[0]),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={directory}/run/munge.sock",
        "CredType": "cred/munge",
        "StateSaveLocation": f"{directory}/state",
        "SlurmdSpoolDir": f"{directory}/spool/%n",
        "SlurmctldPidFile": f"{directory}/run/slurmctld.pid",
        "SlurmdPidFile": f"{directory}/run/slurmd.%n.pid",
        "SlurmctldLogFile": f"{directory}/log/slurmctld.log",
        "SlurmdLogFile": f"{directory}/log/slurmd.%n.log",
        "PlugStackConfig": f"{directory}/etc/plugstack.conf",
        # Works without root and without control groups; kills every descendant of a job, unlike pgid.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": f"{directory}/log/jobcomp.txt",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0",
        "SlurmdParameters": "config_overrides",
        "ReturnToService": "2",
        "MpiDefault": "none",
        "KillWait": "2",
        "MinJobAge": "300",
        "JobRequeue": "1",
        "GresTypes": "gpu",
        **(settings or {}),
    }
    lines = [f"{name}={value}" for name, value in general.items()]
    by_name = {partition.name: partition for partition in PARTITIONS}
    for (name, partition_name, gpus), port in zip(NODES, ports[1:], strict=True):
        partition = by_name[partition_name]
        cpus, memory = partition.cpus // partition.nodes, partition.memory_mib // partition.nodes
        gres = f" Gres=gpu:fake:{gpus}" if gpus else ""
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} SocketsPerBoard=1 "
            f"CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory}{gres} State=UNKNOWN"
        )
    for partition in PARTITIONS:
        nodes = ",".join(name for name, owner, _ in NODES if owner == partition.name)
        default = "YES" if partition.default else "NO"
        lines.append(
            f"PartitionName={partition.name} Nodes={nodes} Default={default} MaxTime=01:00:00 "
            "DefaultTime=00:10:00 DefMemPerCPU=500 State=UP"
        )
    return "\n".join(lines) + "\n"


class RealSlurm:
    """munged, slurmctld and one slurmd per node, all private to ``directory``.

    :param directory: where configuration, state, spool and logs go; created when absent.
    :param start_timeout: seconds to wait for all nodes to be idle.
    :param settings: parameters of ``slurm.conf`` that are added, or replace ours.
    :param cgroup: parameters of ``cgroup.conf`` that are added.
    """

    kind = "real"

    def __init__(
        self,
        directory: Path,
        *,
        start_timeout: float = 30.0,
        settings: Mapping[str, str] | None = None,
        cgroup: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self._settings = dict(settings or {})
        self._cgroup = dict(cgroup or {})
        self.log_path = self.directory / "log" / "slurmctld.log"
        self._start_timeout = start_timeout
        self._config = self.directory / "etc" / "slurm.conf"
        self._daemons: list[Program] = []

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until every node is idle.

        :raises MissingPrerequisite: when programs are missing.
        :raises RejectedError: when the path is too long for a socket.
        :raises PlatformError: when the cluster does not come up in time.
        """
        if lack := missing_programs():
            raise MissingPrerequisite(
                f"SLURM is not installed ({', '.join(lack)} not found); install slurmctld, slurmd, slurm-client and "
                "munge, or use slurm='builtin'",
                part="slurm",
            )
        self._write_configuration()
        try:
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the jobs, end the daemons in reverse order, and wait until they are gone."""
        if self._daemons:
            with suppress(PlatformError):
                self._kill_jobs()
        while self._daemons:
            self._daemons.pop().stop()

    def healthy(self) -> bool:
        """True when slurmctld answers and no node is down."""
        return all(daemon.running for daemon in self._daemons) and self._nodes_up()

    def submit(self, script: Path) -> str:
        """See :meth:`BatchSystem.submit`."""
        done = self._run(submit_command(script))
        return parse_submit(done.returncode, done.stdout, done.stderr)

    def jobs(self) -> dict[str, BatchJob]:
        """See :meth:`BatchSystem.jobs`."""
        done = self._run(jobs_command())
        return parse_jobs(done.returncode, done.stdout, done.stderr)

    def cancel(self, job_id: str) -> None:
        """See :meth:`BatchSystem.cancel`."""
        self._run(cancel_command(job_id))

    def requeue(self, job_id: str) -> None:
        """See :meth:`BatchSystem.requeue`."""
        self._run(["scontrol", "requeue", job_id])

    def control(self, *words: str) -> None:
        """Let the site's administrator act: ``scontrol`` with these words.

        :raises PlatformError: with what it said when it refused.
        """
        done = self._run(["scontrol", *words])
        if done.returncode != 0:
            raise PlatformError(f"scontrol {' '.join(words)}: {quoted((done.stderr or done.stdout).strip())}")

    def drained(self) -> list[str]:
        """Return the nodes that SLURM gives no job until somebody resumes them, as after "Duplicate jobid"."""
        return sorted(name for name, state in self._node_states().items() if state in {"drain", "drng", "down"})

    def partitions(self) -> tuple[Partition, ...]:
        """See :meth:`BatchSystem.partitions`."""
        return PARTITIONS

    def freeze(self, seconds: float) -> None:
        """Let the controller answer nobody for a while; jobs that run go on, and nothing is forgotten."""
        self._signal_controller(signal.SIGSTOP)
        time.sleep(seconds)
        self._signal_controller(signal.SIGCONT)

    def kill_controller(self, pause: float) -> None:
        """Kill slurmctld as ``kill -9`` does once it has saved its jobs, and start it again; it finds them there.

        Killed before that, it launches a job again that runs, which the node refuses and SLURM then holds or ends;
        it takes a job as running whose end it has heard of and not saved, and runs it again minutes later; and it
        knows nothing of a job that it has just accepted. Nobody's job survives that, with us or without.

        :param pause: seconds in between.
        """
        (controller,) = (daemon for daemon in self._daemons if daemon.name == "slurmctld")
        for left in reversed(range(_SAVES)):
            told = self.log_path.stat().st_size
            self._save_jobs()
            self._signal_controller(signal.SIGSTOP)  # from here on it hears of nothing that it would not remember
            if not left or not self._jobs_changed(told):
                break
            self._signal_controller(signal.SIGCONT)
        controller.kill()
        time.sleep(pause)
        controller.start()
        wait_until(self._nodes_up, what="every SLURM node is back", timeout=self._start_timeout, program=controller)

    def _save_jobs(self) -> None:
        """Have slurmctld write down its jobs.

        It saves within seconds of a change that somebody asked for, so this asks for one; that a job has started may
        wait for minutes. Of jobs that have all ended it may have nothing left to save.
        """
        for job in self.jobs().values():
            if not job.finished:
                self._run(["scontrol", "update", f"JobId={job.job_id}", "Nice=0"])
        asked, saved = time.time(), self.directory / "state" / "job_state"
        with suppress(PlatformError):
            wait_until(
                lambda: saved.exists() and saved.stat().st_mtime > asked,
                what="the jobs are saved",
                timeout=_SAVED_WITHIN,
            )

    def _jobs_changed(self, told: int) -> bool:
        """Whether a job came, started or ended, by slurmctld's log, which it writes before it answers.

        :param told: bytes of the log that are older.
        """
        with self.log_path.open("rb") as log:
            log.seek(told)
            return any(b"JobId=" in line and b"update_job" not in line for line in log)

    def _signal_controller(self, number: signal.Signals) -> None:
        for daemon in self._daemons:
            if daemon.name == "slurmctld" and (pid := daemon.pid) is not None:
                os.kill(pid, number)

    def environment(self) -> dict[str, str]:
        """What a shell needs so that ``squeue`` and its kin talk to this cluster."""
        return {"SLURM_CONF": str(self._config)}

    def _process_environment(self) -> dict[str, str]:
        """Environment of daemons and clients alike: a job inherits what its submission had."""
        return {
            "PATH": os.pathsep.join([*map(str, programs.folders()), _PATH]),
            "SLURM_CONF": str(self._config),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            # So that jobs which outlive a killed platform are found.
            **{name: value for name, value in os.environ.items() if name == strays.VARIABLE},
        }

    def _run(self, command: Sequence[str], *, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        program = programs.find(command[0])
        try:
            return subprocess.run(
                [str(program or command[0]), *command[1:]],
                cwd=self.directory,
                env=self._process_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PlatformError(f"{command[0]} gave no answer within {timeout:.0f} s; see {self.log_path}") from error

    def _write_configuration(self) -> None:
        socket_path = self.directory / "run" / "munge.sock"
        if len(os.fsencode(socket_path)) > 100:
            raise RejectedError(
                f"{socket_path} is too long for a socket (107 bytes at most); choose a shorter directory"
            )
        # Nothing of an earlier cluster of this directory is known; a controller that starts again finds its jobs.
        shutil.rmtree(self.directory / "state", ignore_errors=True)
        for name in ("etc", "run", "log", "state", "spool", "munge"):
            (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        # sbatch and jobs write below the directory; munged refuses a key directory others may enter.
        (self.directory / "munge").chmod(0o700)
        key = self.directory / "munge" / "munge.key"
        if not key.exists():
            write_private(key, secrets.token_bytes(1024))
        host = socket.gethostname().split(".")[0]
        etc = self.directory / "etc"
        ports = free_ports(1 + len(NODES))
        settings = {**programs.plugin_settings(), **self._settings}
        self._config.write_text(
            configuration(self.directory, user=getpass.getuser(), host=host, ports=ports, settings=settings)
        )
        (etc / "plugstack.conf").write_text("")
        groups = {"CgroupPlugin": "cgroup/v1"}
        if not self._cgroup and programs.release() >= _WITHOUT_CGROUPS:
            groups = {"CgroupPlugin": "disabled"}
        groups |= self._cgroup
        (etc / "cgroup.conf").write_text("".join(f"{name}={value}\n" for name, value in groups.items()))
        # A GPU must be backed by a device file, which is only looked at; ttys exist everywhere.
        gres = "".join(f"NodeName={name} Name=gpu Type=fake File=/dev/tty[0-{n - 1}]\n" for name, _, n in NODES if n)
        (etc / "gres.conf").write_text(gres)

    def _start_daemons(self) -> None:
        run, log = self.directory / "run", self.directory / "log"
        munged = [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={self.directory}/munge/munge.key",
            f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log",
            f"--seed-file={self.directory}/munge/munge.seed",
        ]
        daemon = self._start_daemon("munged", munged)
        socket_path = run / "munge.sock"
        wait_until(socket_path.exists, what="munged opens its socket", timeout=self._start_timeout, program=daemon)
        self._start_companions()
        controller = self._start_daemon("slurmctld", ["slurmctld", "-D", "-f", str(self._config)])
        stepd = programs.step_daemon()
        steps = ["-d", str(stepd)] if stepd else []
        for name, _, _ in NODES:
            self._start_daemon(f"slurmd.{name}", ["slurmd", "-D", "-N", name, "-f", str(self._config), *steps])
        wait_until(self._nodes_up, what="every SLURM node is idle", timeout=self._start_timeout, program=controller)

    def _start_companions(self) -> None:
        """Start what slurmctld needs besides munged; for clusters with accounting, and nothing here."""

    def _start_daemon(self, name: str, command: Sequence[str]) -> Program:
        program = str(programs.find(command[0]) or command[0])
        daemon = Program(
            name,
            [program, *command[1:]],
            log_path=self.directory / "log" / f"{name}.out",
            env=self._process_environment(),
            cwd=self.directory,
            death_signal=signal.SIGTERM,
            with_descendants=command[0] == "slurmd",  # its jobs have sessions of their own
        )
        self._daemons.append(daemon)
        daemon.start()
        return daemon

    def _node_states(self) -> dict[str, str]:
        """Nodes with their states as ``sinfo`` shortens them; empty while the controller does not answer."""
        try:
            done = self._run(["sinfo", "--noheader", "--Node", "--format=%N %t"], timeout=5.0)
        except PlatformError:
            return {}
        return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)

    def _nodes_up(self) -> bool:
        states = self._node_states()
        return len(states) == len(NODES) and all(s in {"idle", "mix", "alloc", "comp"} for s in states.values())

    def _kill_jobs(self) -> None:
        running = [job.job_id for job in self.jobs().values() if not job.finished]
        if not running:
            return
        self._run(["scancel", "--signal=KILL", "--full", *running])
        self._run(["scancel", *running])
        with suppress(PlatformError):
            wait_until(
                lambda: all(job.finished for job in self.jobs().values()),
                what="the SLURM jobs are gone",
                timeout=5.0,
            )
