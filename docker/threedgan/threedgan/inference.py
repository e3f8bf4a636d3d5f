# SPDX-License-Identifier: Apache-2.0
"""One run: read, generate in batches, write showers, picture and metrics.

Order of writing: showers, picture, metrics last; ``cli`` decides what to run, this module runs it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threedgan import __version__
from threedgan.architecture import LATENT, SHOWER_SHAPE
from threedgan.data import PICTURED, Showers, ShowerWriter, read_showers
from threedgan.engines import LARGEST_CALL, Engines, load_engines
from threedgan.errors import OutputError, first_line
from threedgan.generator import build_model
from threedgan.physics import (
    EMPTY_ANGLE,
    ENERGY_SCALE,
    UNITS_PER_GEV,
    energy_sums,
    measured_angles,
    profile_distance,
    profiles,
    to_gev,
)
from threedgan.settings import Settings
from threedgan.weights import Weights

log = logging.getLogger("threedgan")


@dataclass
class Generated:
    """What is remembered of the generated showers once they are written."""

    sums: list[npt.NDArray[np.float64]] = field(default_factory=list)
    angles: list[npt.NDArray[np.float64]] = field(default_factory=list)
    profiles: list[npt.NDArray[np.float64]] = field(default_factory=lambda: [np.zeros(size) for size in SHOWER_SHAPE])
    pictured: list[npt.NDArray[np.float32]] = field(default_factory=list)
    batches: int = 0
    seconds: float = 0.0

    def add(self, gev: npt.NDArray[np.float32], seconds: float) -> None:
        """Account for one batch."""
        self.sums.append(energy_sums(gev))
        self.angles.append(measured_angles(gev))
        self.profiles = [total + part for total, part in zip(self.profiles, profiles(gev), strict=True)]
        self.pictured.extend(image.copy() for image in gev[: PICTURED - len(self.pictured)])
        self.batches += 1
        self.seconds += seconds


def latent_vectors(showers: Showers, seed: int) -> npt.NDArray[np.float32]:
    """Return the network's input, (n, 256); shower i gets the same noise whatever the batch size or the limit."""
    noise = np.random.default_rng(seed).standard_normal((len(showers), LATENT - 2), dtype=np.float32)
    return np.column_stack([showers.energy / np.float32(ENERGY_SCALE), showers.theta, noise]).astype(np.float32)


@dataclass(frozen=True)
class Loaded:
    """What is the same for every input file.

    :param weights: of the network.
    :param engines: that carry it out.
    :param warnings: for people.
    :param seconds: it took.
    """

    weights: Weights
    engines: Engines
    warnings: tuple[str, ...]
    seconds: float


def load(settings: Settings) -> Loaded:
    """Load weights and engines.

    :param settings: which ones.
    :raises SettingsError: if they are unusable.
    """
    mark = time.perf_counter()
    weights = Weights.from_npz(settings.weights) if settings.weights else Weights.from_seed()
    engines, warnings = load_engines(
        build_model(weights).SerializeToString(),
        engine=settings.engine,
        provider=settings.provider,
        threads=settings.threads,
        precision=settings.precision,
    )
    for warning in warnings:
        log.warning("%s", warning)
    log.info("weights: %s%s", weights.origin, "" if weights.trained else " (untrained, as the reference runs them)")
    return Loaded(weights, engines, warnings, time.perf_counter() - mark)


def infer(settings: Settings, loaded: Loaded | None = None) -> dict[str, Any]:
    """Run it all for one input file and return the metrics.

    :param settings: what is wanted.
    :param loaded: weights and engines of these settings, where they were loaded before.
    :raises PayloadError: with the line to show, if input, weights or output are unusable.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    timings: dict[str, float] = {}
    showers = read_showers(settings.input, settings.limit)
    timings["read"] = time.perf_counter() - started
    log.info("%s: %d of %d showers selected", settings.input.name, len(showers), showers.found)

    mark = time.perf_counter()
    loaded = loaded or load(settings)
    weights, engines, warnings = loaded.weights, loaded.engines, loaded.warnings
    timings["load"] = time.perf_counter() - mark

    _make_directory(settings.output)
    stem = settings.output / settings.input.stem
    generated = _generate(settings, showers, weights, engines, stem.with_name(f"{stem.name}.showers.h5"))
    timings["generate"] = generated.seconds

    if settings.picture:
        mark = time.perf_counter()
        _draw(stem.with_name(f"{stem.name}.png"), showers, generated, weights)
        timings["picture"] = time.perf_counter() - mark
    timings["wall"] = time.perf_counter() - started
    timings["cpu"] = time.process_time() - cpu_started
    metrics = {
        **_circumstances(settings, weights, engines, warnings),
        **_results(showers, generated),
        "seconds": {name: round(value, 4) for name, value in timings.items()},
        "seconds_per_shower": round(generated.seconds / len(showers), 4),
    }
    write_json(stem.with_name(f"{stem.name}.metrics.json"), metrics)
    if settings.metrics_file is not None:
        write_json(settings.metrics_file, metrics)
    return metrics


def _generate(settings: Settings, showers: Showers, weights: Weights, engines: Engines, path: Path) -> Generated:
    latent = latent_vectors(showers, settings.seed)
    generated = Generated()
    attributes: dict[str, str | int | float] = {
        "generator": f"threedgan {__version__}",
        "weights": weights.origin,
        "weights_sha256": weights.sha256,
        "seed": settings.seed,
    }
    # What a larger batch would hold at once is written in parts: memory is the same whatever was asked for.
    step = min(settings.batch_size, LARGEST_CALL)
    with ShowerWriter(path, attributes) as writer:
        for start in range(0, len(showers), step):
            part = slice(start, min(start + step, len(showers)))
            mark = time.perf_counter()
            gev = to_gev(engines.run(latent[part]))
            generated.add(gev, seconds := time.perf_counter() - mark)
            writer.append(ECAL=gev, energy=showers.energy[part], theta=showers.theta[part])
            log.info(
                "showers %d-%d of %d in %.2f s on %s",
                start + 1,
                part.stop,
                len(showers),
                seconds,
                engines.chosen.device,
            )
    return generated


def _draw(path: Path, showers: Showers, generated: Generated, weights: Weights) -> None:
    from threedgan.picture import draw  # matplotlib takes seconds to import, and a run without picture needs none

    origin = weights.origin if weights.trained else f"{weights.origin}, untrained: the cost of 3DGAN, not its physics"
    draw(path, showers, generated.profiles, generated.pictured, f"weights: {origin}")


def _circumstances(settings: Settings, weights: Weights, engines: Engines, warnings: tuple[str, ...]) -> dict[str, Any]:
    """Return how and where the showers were made."""
    return {
        "payload": f"threedgan {__version__}",
        "input": settings.input.name,
        "device": engines.chosen.device,
        "requested": {"cuda": "gpu"}.get(settings.provider, settings.provider),
        "engine": engines.chosen.name,
        "precision": engines.chosen.precision,
        "precision_differences": engines.differences(),
        "engine_seconds_per_shower": engines.measured(),
        "warnings": list(warnings),
        "batch_size": settings.batch_size,
        "threads": settings.threads,
        "node": platform.node(),
        "weights": {"origin": weights.origin, "trained": weights.trained, "sha256": weights.sha256},
        "seed": settings.seed,
    }


def _results(showers: Showers, generated: Generated) -> dict[str, Any]:
    """Return how many showers there are and what they look like, next to those of the input."""
    sums, angles = np.concatenate(generated.sums), np.concatenate(generated.angles)
    hits = angles != EMPTY_ANGLE
    return {
        "showers_found": showers.found,
        "showers_selected": len(showers),
        "showers": len(sums),
        "empty_showers": int(len(sums) - hits.sum()),
        "batches": generated.batches,
        "energy_gev": {"min": _round(showers.energy.min()), "max": _round(showers.energy.max())},
        "sampling_fraction": {
            "generated": _round((sums / showers.energy).mean()),
            "input": _round((showers.sums / UNITS_PER_GEV / showers.energy).mean()),
        },
        "angle_error_rad": {
            "generated": _round(np.abs(angles[hits] - showers.theta[hits]).mean()) if hits.any() else None,
            "input": _round(np.abs(showers.angles - showers.theta).mean()),
        },
        "profile_distance": {
            axis: _round(profile_distance(ours, theirs))
            for axis, ours, theirs in zip("xyz", generated.profiles, showers.profiles, strict=True)
        },
    }


def _round(value: float | np.floating) -> float | None:
    """Return six significant digits; None for what JSON cannot say."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {first_line(error)}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a whole file or none."""
    partial = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {first_line(error)}") from error
