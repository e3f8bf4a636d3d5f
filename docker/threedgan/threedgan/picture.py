# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: profiles along the three axes, input against generated, and a few generated showers.

matplotlib is used without pyplot and without a display. It would keep its list of fonts in the home directory; unless
``MPLCONFIGDIR`` says where (the image has one), a directory is made for it and removed again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threedgan.data import Showers
from threedgan.errors import OutputError, first_line
from threedgan.physics import UNITS_PER_GEV, normalised

_INK = "#1f2933"
_FAINT = "#9aa5b1"
_INPUT = "#cbd2d9"
_GENERATED = "#d9480f"
_CONTRAST = 1e-3
"""Faintest shade as a fraction of the brightest."""
_AXES = (("x", "transverse"), ("y", "transverse"), ("z", "depth"))


def draw(
    path: Path,
    showers: Showers,
    profiles: Sequence[npt.NDArray[np.float64]],
    images: Sequence[npt.NDArray[np.float32]],
    caption: str,
) -> None:
    """Draw to a PNG file of 1320 x 1001 pixels.

    :param profiles: energy of all generated showers along x, y and z.
    :param images: the first few generated showers, (51, 51, 25) in GeV.
    :param caption: small print, bottom left.
    """
    if "MPLCONFIGDIR" in os.environ:
        _draw(path, showers, profiles, images, caption)
        return
    with tempfile.TemporaryDirectory(prefix="threedgan-") as directory:
        os.environ["MPLCONFIGDIR"] = directory
        try:
            _draw(path, showers, profiles, images, caption)
        finally:
            del os.environ["MPLCONFIGDIR"]


def _draw(
    path: Path,
    showers: Showers,
    profiles: Sequence[npt.NDArray[np.float64]],
    images: Sequence[npt.NDArray[np.float32]],
    caption: str,
) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "axes.titlecolor": _INK}):
        figure = Figure(figsize=(12, 9.1), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(3, 12, left=0.065, right=0.92, top=0.88, bottom=0.075, hspace=0.42, wspace=1.1)
        for column, (name, kind) in enumerate(_AXES):
            axes = figure.add_subplot(grid[0, 4 * column : 4 * column + 4])
            _draw_profile(axes, f"{name} ({kind})", showers.profiles[column], profiles[column])
            if column == 0:
                axes.legend(frameon=False, loc="upper right", fontsize=8)
                axes.set_ylabel("share of energy")
        _draw_showers(figure, grid, showers, images)
        title = f"{len(showers)} generated shower{'s' if len(showers) != 1 else ''}"
        figure.text(0.065, 0.95, title, fontsize=15, weight="bold")
        energies = f"{showers.energy.min():.0f}–{showers.energy.max():.0f} GeV"
        angles = f"{np.rad2deg(showers.theta.min()):.0f}–{np.rad2deg(showers.theta.max()):.0f}°"
        figure.text(0.065, 0.925, f"energy {energies}, angle {angles}", fontsize=10, color="#52606d")
        figure.text(0.065, 0.015, caption, fontsize=8, color="#7b8794")
        try:
            figure.savefig(path, format="png")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {first_line(error)}") from error


def _draw_profile(
    axes: Any, title: str, reference: npt.NDArray[np.float64], generated: npt.NDArray[np.float64]
) -> None:
    edges = np.arange(len(reference) + 1)
    axes.stairs(normalised(reference), edges, fill=True, color=_INPUT, label="input")
    axes.stairs(normalised(generated), edges, color=_GENERATED, linewidth=1.6, baseline=None, label="generated")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlim(0, len(reference))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cell")
    _quiet(axes)


def _draw_showers(figure: Any, grid: Any, showers: Showers, images: Sequence[npt.NDArray[np.float32]]) -> None:
    """Draw input showers above the generated ones of the same energy and angle, seen along x, on one colour scale."""
    from matplotlib.colors import LogNorm

    rows = {
        "input": [image.sum(axis=0, dtype=np.float64) / UNITS_PER_GEV for image in showers.pictured],
        "generated": [image.sum(axis=0, dtype=np.float64) for image in images],
    }
    peak = max(float(image.max()) for row in rows.values() for image in row) or 1.0
    norm = LogNorm(vmin=peak * _CONTRAST, vmax=peak, clip=True)
    for row, (name, flat) in enumerate(rows.items(), start=1):
        for index, image in enumerate(flat):
            axes = figure.add_subplot(grid[row, 3 * index : 3 * index + 3])
            mesh = axes.imshow(
                np.maximum(image, peak * _CONTRAST),
                origin="lower",
                aspect="auto",
                cmap="magma",
                norm=norm,
                extent=(0, image.shape[1], 0, image.shape[0]),
            )
            angle = np.rad2deg(showers.theta[index])
            axes.set_title(f"{name}: {showers.energy[index]:.0f} GeV, {angle:.0f}°", loc="left", fontsize=10)
            if row == len(rows):
                axes.set_xlabel("z (depth)")
            if index == 0:
                axes.set_ylabel("y")
            _quiet(axes)
    bar = figure.colorbar(mesh, cax=figure.add_axes((0.936, 0.075, 0.011, 0.502)))
    bar.set_label("GeV, summed over x", fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=_FAINT)


def _quiet(axes: Any) -> None:
    """Take the frame back so that the data lead."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(color=_FAINT, labelcolor="#52606d", labelsize=8)
