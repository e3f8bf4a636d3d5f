# SPDX-License-Identifier: Apache-2.0
"""What a job asks of SLURM, as pod annotations that every generation of interLink's plugin reads alike.

:mod:`~airflow_provider_oscar.core.pods` puts the result into a pod. CPU and memory are not flags:
the plugin takes them from the pod's limits and ignores ``--cpus-per-task`` and ``--mem`` as soon as
one container has a limit, so :meth:`SlurmOptions.limits` is the only place that says them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta

from airflow_provider_oscar.core.checks import check_fields, check_has_value, is_template
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.slurm_notations import format_time, is_node_range
from airflow_provider_oscar.core.slurm_signals import passing_on

ANNOTATION_PREFIX = "slurm-job.vk.io/"

#: Prefixes that documents of OSCAR and of older interLink name and that no plugin reads.
DEAD_PREFIXES = ("job.vk.io/", "slurm-job.knoc.io/")

#: Variables of the host that the container (``--containall``) would not see otherwise.
EXPORTED = (
    *(f"SLURM_JOB_{name}" for name in ("ID", "NAME", "PARTITION", "ACCOUNT", "QOS", "NODELIST", "NUM_NODES")),
    *(f"SLURM_JOB_{name}" for name in ("CPUS_PER_NODE", "GPUS", "START_TIME", "END_TIME")),
    *(f"SLURM_{name}" for name in ("CLUSTER_NAME", "CPUS_ON_NODE", "CPUS_PER_TASK", "GPUS_ON_NODE", "MEM_PER_NODE")),
    *(f"SLURM_{name}" for name in ("NNODES", "NPROCS", "NTASKS", "NTASKS_PER_NODE", "TASKS_PER_NODE")),
    # By these older names MPI libraries find the allocation; without them they start all ranks on the first node.
    *("SLURM_JOBID", "SLURM_NODELIST", "SLURM_MEM_PER_CPU"),
    *("SLURM_RESTART_COUNT", "SLURM_CONF", "SLURMD_NODENAME", "OMP_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
)
_EXPORT = (
    f"for OSCAR_NAME in {' '.join(EXPORTED)}; do\n"
    '  eval "OSCAR_VALUE=\\${$OSCAR_NAME-}"\n'
    '  if [ -n "$OSCAR_VALUE" ]; then\n'
    '    export "SINGULARITYENV_$OSCAR_NAME=$OSCAR_VALUE" "APPTAINERENV_$OSCAR_NAME=$OSCAR_VALUE"\n'
    "  fi\n"
    "done\n"
    "unset OSCAR_NAME OSCAR_VALUE\n"
)

# sbatch reads "#SBATCH" lines without a shell, but the plugin splits them on blanks and drops quotes.
_VALUE = re.compile(r"[A-Za-z0-9_.,:=@%+/&|()\[\]*-]+")
_FLAG = re.compile(r"--(?P<name>[a-z][a-z0-9-]*)(?:=(?P<value>.+))?", re.DOTALL)
# These texts land unquoted in a shell command line.
_WORD = re.compile(r"[A-Za-z0-9_.,:=@%+/-]+")
_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9_.,:=@+/-]+")
_NUMBERS = {"cpus_per_task": 1, "memory_mib": 1, "gpus": 0, "nodes": 1, "ntasks": 1, "ntasks_per_node": 1}

#: Flags of sbatch that are fields.
FIELD_OF_FLAG = {
    "partition": "partition",
    "time": "time",
    "cpus-per-task": "cpus_per_task",
    "mem": "memory_mib",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "nodes": "nodes",
    "ntasks": "ntasks",
    "ntasks-per-node": "ntasks_per_node",
    "job-name": "job_name",
    "comment": "comment",
}
_REFUSED_FLAGS = {
    "output": "the plugin reads the log from its own --output",
    "error": "the plugin reads the log from its own --output",
    "mem-per-cpu": "it contradicts the --mem that the plugin always adds; use memory_mib",
    "mem-per-gpu": "it contradicts the --mem that the plugin always adds; use memory_mib",
    "array": "one pod is one job: each element would run the whole command and overwrite the result of the others, and "
    "interLink reads the state of one. InterLinkBatchOperator has many objects in one job, .expand() one job for each",
    "wait": "sbatch would block the plugin until the job ends",
    "wrap": "the plugin submits a script of its own",
    "parsable": "the plugin could not read the job id",
    "quiet": "the plugin could not read the job id",
    "verbose": "the plugin takes any line on sbatch's standard error as a failure",
    "test-only": "no job would be submitted",
    "uid": "only a plugin that runs as root may set it",
    "gid": "only a plugin that runs as root may set it",
    "help": "no job would be submitted",
    "usage": "no job would be submitted",
    "version": "no job would be submitted",
    "clusters": "the plugin looks for its jobs in its own cluster",
}
_MOUNT = re.compile(r"/[^:,]*:/[^:,]*(?::r[ow])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions:
    """What one job asks of SLURM. Every field may be a Jinja template, which the operator renders for each try.

    :param partition: SLURM partition; empty means the site's default.
    :param time: wall-clock limit, as a timedelta or in a SLURM notation (``90`` minutes, ``1:30:00``, ``2-12``).
    :param cpus_per_task: CPUs; becomes the pod's cpu limit. None for the limit that the pod's template or the service's
        definition has, or else 1.
    :param memory_mib: memory in MiB; becomes the pod's memory limit. None as above, or else 1024.
    :param gpus: number of GPUs (``--gres=gpu:N``). For a type write ``extra_flags=("--gres=gpu:a100:1",)`` instead.
    :param account: account that is charged.
    :param qos: quality of service.
    :param constraint: node features, for example ``a100&nvlink``.
    :param nodes: number of nodes, or a range such as ``"2-4"``, of which SLURM gives as many as it has at once; None to
        leave it to SLURM.
    :param ntasks: processes in all, or None; the command runs once unless a ``launcher`` starts it that often.
    :param ntasks_per_node: processes on each node, or None.
    :param job_name: name shown by ``squeue``; empty for ``<DAG>.<task>``.
    :param comment: comment shown by ``squeue`` and kept by ``sacct``; empty for DAG, task, run and try.
    :param extra_flags: further ``sbatch`` flags, each ``--name`` or ``--name=value`` without blanks or quotes.
    :param pre_exec: shell text that runs on the compute node before the container. It is stored in clear in the
        pod and the job script: no secrets, nothing taken from an object.
    :param mounts: bind mounts ``source:destination[:ro]`` for every container, at sites with Apptainer or Enroot.
    :param options: further words for the site's container runtime, for example Apptainer's ``--no-home`` or Enroot's
        ``--rw``.
    :param image_root: prefix of image names without a scheme, for example ``docker://``.
    :raises DefinitionError: if the plugin or sbatch would misread a value.
    """

    partition: str = ""
    time: timedelta | str = timedelta(hours=1)
    cpus_per_task: int | str | None = None
    memory_mib: int | str | None = None
    gpus: int | str = 0
    account: str = ""
    qos: str = ""
    constraint: str = ""
    nodes: int | str | None = None
    ntasks: int | str | None = None
    ntasks_per_node: int | str | None = None
    job_name: str = ""
    comment: str = ""
    extra_flags: tuple[str, ...] = ()
    pre_exec: str = ""
    mounts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    image_root: str = ""

    def __post_init__(self) -> None:
        for name in ("extra_flags", "mounts", "options"):
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        for name in _NUMBERS:
            if isinstance(text := getattr(self, name), str) and _is_number(name, text):
                object.__setattr__(self, name, int(text))
        if not self.is_template:
            self._check()

    def _check(self) -> None:
        format_time(self.time)
        for name, least in _NUMBERS.items():
            number = getattr(self, name)
            if number is None and name != "gpus":
                continue
            if name == "nodes" and is_node_range(number):
                continue
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise DefinitionError(
                    f"SlurmOptions.{name} is {quoted(number)}; expected a whole number >= {least}{_hint(name)}"
                )
        check_fields(self, "SlurmOptions")
        for name in ("partition", "account", "qos", "constraint", "job_name", "comment"):
            _check(name, getattr(self, name), _VALUE)
        _check("image_root", self.image_root, _WORD)
        for word in (*self.mounts, *self.options):
            _check("mounts/options", word, _WORD)
        for mount in self.mounts:
            if _MOUNT.fullmatch(mount) is None:
                raise DefinitionError(
                    f"SlurmOptions.mounts holds {quoted(mount)}; expected source:destination or source:destination:ro, "
                    "one of them each, both absolute paths"
                )
        _check_extra_flags(self.extra_flags, gpus=bool(self.gpus))
        _check_pre_exec(self.pre_exec)

    @property
    def is_template(self) -> bool:
        """Whether some field is a template that was not rendered yet."""
        texts: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            texts += [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
        return any(map(is_template, texts))

    def rendered(self, render: Callable[[str], object]) -> SlurmOptions:
        """Return the options with every template in them rendered; one that becomes empty leaves its field or flag out.

        :param render: renders one text.
        :raises DefinitionError: if what comes out is not valid.
        """
        values: dict[str, object] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, tuple):
                values[each.name] = tuple(word for word in (str(render(word)) for word in value) if word)
            elif isinstance(value, str):
                found = render(value)
                check_has_value(found, f"SlurmOptions.{each.name}")
                text = str(found).strip() if each.name in _NUMBERS else found
                values |= {} if text == "" else {each.name: text}
            else:
                values[each.name] = value
        made = SlurmOptions(**values)  # type: ignore[arg-type]
        made._check()  # also if what was rendered looks like a template again
        return made

    def named(self, *, job_name: str, comment: str) -> SlurmOptions:
        """Return the options with a name and a comment where they have none; any text is made to fit."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        made = {"job_name": flag_text(job_name), "comment": flag_text(comment)}
        return SlurmOptions(**{**given, **{name: given[name] or text for name, text in made.items()}})

    def flags(self) -> tuple[str, ...]:
        """Return the ``sbatch`` flags, each one word; ``--time`` is always among them."""
        known = (
            ("job-name", self.job_name),
            ("time", format_time(self.time)),
            ("partition", self.partition),
            ("account", self.account),
            ("qos", self.qos),
            ("constraint", self.constraint),
            ("nodes", str(self.nodes or "")),
            ("ntasks", str(self.ntasks or "")),
            ("ntasks-per-node", str(self.ntasks_per_node or "")),
            ("comment", self.comment),
            ("gres", f"gpu:{self.gpus}" if self.gpus else ""),
        )
        return (*(f"--{name}={value}" for name, value in known if value), *self.extra_flags)

    def limits(self) -> dict[str, str]:
        """Return the pod limits that become ``--cpus-per-task`` and ``--mem``, as far as they are given."""
        found = {"cpu": str(self.cpus_per_task or ""), "memory": f"{self.memory_mib}Mi" if self.memory_mib else ""}
        return {name: value for name, value in found.items() if value}

    def to_annotations(self) -> dict[str, str]:
        """Return the pod annotations, all below ``slurm-job.vk.io/``."""
        annotations = {
            "flags": " ".join(self.flags()),
            "pre-exec": f"{passing_on(self.extra_flags)}{_EXPORT}{self.pre_exec}".rstrip("\n") + "\n",
            # The plugin reads those of the runtime that its site has: Apptainer's (named singularity), or Enroot's.
            "singularity-mounts": " ".join(f"--bind {mount}" for mount in self.mounts),
            "singularity-options": " ".join(self.options),
            "enroot-mounts": " ".join(f"--mount {_fstab(mount)}" for mount in self.mounts),
            "enroot-options": " ".join(self.options),
            # The plugin glues prefix and image together without a slash of its own.
            "image-root": self.image_root and self.image_root.removesuffix("/") + "/",
        }
        return {f"{ANNOTATION_PREFIX}{name}": text for name, text in annotations.items() if text}


def _fstab(mount: str) -> str:
    """Return a bind mount as Enroot takes it: the fields of fstab(5), colon-separated."""
    source, destination, *mode = mount.split(":")
    return f"{source}:{destination}:none:x-create=auto,rbind{',ro' if mode == ['ro'] else ''}"


def check_annotations(annotations: Mapping[str, str]) -> None:
    """Refuse annotations that look as if they reached SLURM and do not.

    :raises DefinitionError: with the key that works instead.
    """
    for key in annotations:
        for dead in DEAD_PREFIXES:
            if key.startswith(dead):
                raise DefinitionError(
                    f"no interLink plugin reads the annotation {quoted(key)}; write "
                    f"{quoted(ANNOTATION_PREFIX + key.removeprefix(dead))}, or better the fields of SlurmOptions"
                )


def check_service_flags(annotations: Mapping[str, object], field_path: str) -> None:
    """Refuse a service whose jobs would be job arrays; of its flags, those that SLURM refuses are SLURM's to refuse.

    :param annotations: of the service.
    :param field_path: the service, for messages.
    :raises DefinitionError: if a flag asks for an array, in whatever form sbatch takes.
    """
    for word in str(annotations.get(f"{ANNOTATION_PREFIX}flags") or "").split():
        short = word.startswith("-a")
        name = word[2:].partition("=")[0] if word.startswith("--ar") else ""
        if short or (name and "array".startswith(name)):
            raise DefinitionError(
                f"{field_path} asks by {quoted(word)} for a job array, and {_REFUSED_FLAGS['array']}; the jobs of an "
                "OSCAR service take one event each, so submit one job for each object"
            )


#: Characters of a comment that is made of names.
COMMENT_LIMIT = 200


def flag_text(text: str, limit: int = COMMENT_LIMIT) -> str:
    """Return any text cut and replaced so that it survives as the value of a flag."""
    return _UNSAFE_IN_NAME.sub("_", text)[:limit]


def _is_number(name: str, text: str) -> bool:
    return name in _NUMBERS and text.isascii() and text.isdigit()


def _hint(name: str) -> str:
    """How people who know SLURM's own notation say the same here."""
    if name == "memory_mib":
        return " of MiB, such as 4096 for 4G"
    if name == "nodes":
        return ", or a range such as '2-4' whose first number is the smaller one"
    return "; for a type of GPU write extra_flags=('--gres=gpu:TYPE:NUMBER',)" if name == "gpus" else ""


def _words(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)):
        raise DefinitionError(f"SlurmOptions.{name} is the text {quoted(value)}; expected a tuple of words")
    words = tuple(value) if isinstance(value, Iterable) else (value,)
    for word in words:
        if not isinstance(word, str):
            raise DefinitionError(f"SlurmOptions.{name} holds {quoted(word)}; expected a tuple of words")
    return words


def _check(name: str, value: str, allowed: re.Pattern[str]) -> None:
    if value and not allowed.fullmatch(value):
        raise DefinitionError(
            f"SlurmOptions.{name} is {quoted(value)}; blanks, quotes and shell characters do not survive the way "
            f"through interLink's SLURM plugin, expected only {allowed.pattern}"
        )


def _check_extra_flags(flags: tuple[str, ...], *, gpus: bool) -> None:
    names: set[str] = set()
    for flag in flags:
        match = _FLAG.fullmatch(flag)
        if match is None:
            raise DefinitionError(f"SlurmOptions.extra_flags holds {quoted(flag)}; expected --name or --name=value")
        name = match["name"]
        _check("extra_flags", match["value"] or "", _VALUE)
        if name in FIELD_OF_FLAG:
            raise DefinitionError(f"SlurmOptions.extra_flags holds {quoted(flag)}; use the field {FIELD_OF_FLAG[name]}")
        if name in _REFUSED_FLAGS:
            raise DefinitionError(f"SlurmOptions.extra_flags holds {quoted(flag)}: {_REFUSED_FLAGS[name]}")
        # sbatch takes any beginning that is the only one of its kind.
        if whole := [each for each in (*_REFUSED_FLAGS, *FIELD_OF_FLAG) if each.startswith(name)]:
            raise DefinitionError(
                f"SlurmOptions.extra_flags holds {quoted(flag)}, which sbatch may take for --{whole[0]}; write it out"
            )
        if name in names or (name in ("gres", "gpus") and gpus):
            raise DefinitionError(f"SlurmOptions asks for --{name} twice; the plugin would keep only the last one")
        names.add(name)


def _check_pre_exec(text: str) -> None:
    for part, why in (
        ("EOFMESH", "the plugin cuts text out at this marker"),
        ("#SBATCH", "sbatch would take the line as a flag; use extra_flags"),
        ("\0", "a script cannot hold NUL"),
        ("\r", "a carriage return becomes part of the last word"),
    ):
        if part in text:
            raise DefinitionError(f"SlurmOptions.pre_exec contains {part!r}: {why}")
