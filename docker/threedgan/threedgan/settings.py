# SPDX-License-Identifier: Apache-2.0
"""What one inference run is told: the options of ``threedgan infer``, each with its environment variable.

The variables are those scripts written for OSCAR's FaaS Supervisor and the reference's pods use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from threedgan.errors import SettingsError

BATCH_SIZE = 4
NOISE_SEED = 4231162351
PROVIDERS = ("auto", "cpu", "cuda")
ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("float32", "auto")
_ACCELERATORS = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "auto": "auto", "": "auto"}
_SWITCH = {"": True, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Settings:
    """One run, fully decided.

    :param provider: ``cpu``, ``cuda`` (falls back to the CPU, visibly) or ``auto`` (CUDA where there is some).
    :param engine: ``onnxruntime``, ``openvino``, or ``auto`` for whichever the first network calls show to be faster.
    :param precision: ``float32``, or ``auto`` for bfloat16 where the processor has it and the physics holds.
    :param weights: an ``.npz`` of weights, or None for the seeded ones.
    :param seed: seed of the latent noise.
    :param limit: at most this many showers.
    :param metrics_file: where the supervisor collects the metrics, besides the output directory.
    """

    input: Path
    output: Path
    batch_size: int = BATCH_SIZE
    provider: str = "auto"
    engine: str = "auto"
    precision: str = "float32"
    weights: Path | None = None
    seed: int = NOISE_SEED
    limit: int | None = None
    threads: int = 1
    picture: bool = True
    metrics_file: Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("batch size", self.batch_size), ("threads", self.threads), ("max showers", self.limit)):
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise SettingsError(f"seed must not be negative, got {self.seed}")
        if self.provider not in PROVIDERS:
            raise SettingsError(f"provider must be one of {', '.join(PROVIDERS)}, got {self.provider!r}")
        if self.engine not in ENGINES:
            raise SettingsError(f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")


def number(environment: Mapping[str, str], name: str) -> int | None:
    """Return the whole number in a variable, None if it is unset or empty.

    :raises SettingsError: if it holds something else.
    """
    text = environment.get(name, "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"environment variable {name} must be a whole number, got {text[:40]!r}") from None


def choose_provider(environment: Mapping[str, str]) -> str:
    """Return the provider that ``ACCELERATOR`` (cpu, gpu or auto) asks for.

    :raises SettingsError: if it asks for something else.
    """
    word = environment.get("ACCELERATOR", "").strip().lower()
    if word not in _ACCELERATORS:
        raise SettingsError(f"environment variable ACCELERATOR must be cpu, gpu or auto, got {word[:40]!r}")
    return _ACCELERATORS[word]


def switched_on(environment: Mapping[str, str], name: str) -> bool:
    """Tell whether a switch that is on by default is on.

    :raises SettingsError: if the variable says neither.
    """
    word = environment.get(name, "").strip().lower()
    if word not in _SWITCH:
        raise SettingsError(f"environment variable {name} must be true or false, got {word[:40]!r}")
    return _SWITCH[word]


def thread_count(environment: Mapping[str, str], cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """Return how many threads to compute with: ``THREEDGAN_THREADS``, else what the batch system or container grants.

    A machine's core count is no grant, so without any the answer is 1; never more than the CPUs of our affinity.
    """
    asked = number(environment, "THREEDGAN_THREADS")
    if asked is not None:
        return asked
    granted = number(environment, "SLURM_CPUS_PER_TASK") or _cgroup_cpus(cgroup_limit) or 1
    return max(1, min(granted, len(os.sched_getaffinity(0))))


def _cgroup_cpus(limit: Path) -> int | None:
    """Return the CPU limit of our control group (version 2), as Kubernetes sets it, in whole CPUs."""
    try:
        quota, period = limit.read_text().split()[:2]
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
