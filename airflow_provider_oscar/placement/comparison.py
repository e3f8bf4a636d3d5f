# SPDX-License-Identifier: Apache-2.0
"""The same work at several targets, side by side: a table and a figure of how long it took; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

#: Size of the figure, and of the room left of the boxes, in pixels.
WIDTH, ROW, LEFT, MARGIN = 720, 56, 150, 40
#: Marks of the axis at most, besides 0, and characters of the title that fit.
TICKS, TITLE = 6, 64


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How long one kind of work took at one target.

    :param target: its name.
    :param seconds: of each repetition.
    """

    target: str
    seconds: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile."""
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        low, middle, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, middle, high


def measure(manifests: Sequence[object], phase: str = "run") -> list[Measured]:
    """Return how long a phase took at each target, the targets in the order they first appear.

    :param manifests: what job tasks return; what is none, or did not get to the phase, is left out.
    :param phase: ``queued``, ``stage-in``, ``run`` or ``stage-out``.
    """
    found: dict[str, list[float]] = {}
    for manifest in manifests:
        if not isinstance(manifest, Mapping):
            continue
        dated = (manifest.get("phases") or {}).get(phase) or {}
        try:
            start, end = (datetime.fromisoformat(str(dated[name])) for name in ("start", "end"))
        except (KeyError, ValueError):
            continue
        found.setdefault(str(manifest.get("placement")), []).append((end - start).total_seconds())
    return [Measured(target=name, seconds=tuple(seconds)) for name, seconds in found.items()]


def rows(measured: Sequence[Measured], reference: Mapping[str, float] | None = None) -> list[dict[str, object]]:
    """Return a row of a table for each target; how much faster than the first it was, in per cent of the median.

    :param measured: of :func:`measure`; the first is what the others are compared with.
    :param reference: what others found, in per cent; shown beside, never mixed in.
    """
    found: list[dict[str, object]] = []
    for each in measured:
        low, middle, high = each.quartiles
        base = measured[0].quartiles[1]
        found.append(
            {
                "target": each.target,
                "jobs": len(each.seconds),
                "least": round(min(each.seconds), 3),
                "lower quartile": round(low, 3),
                "median": round(middle, 3),
                "upper quartile": round(high, 3),
                "greatest": round(max(each.seconds), 3),
                "faster": round(100 * (1 - middle / base), 1) if base > 0 else 0.0,
                "reference": (reference or {}).get(each.target, ""),
            }
        )
    return found


def markdown(measured: Sequence[Measured], reference: Mapping[str, float] | None = None, *, source: str = "") -> str:
    """Return the table as Markdown, seconds with three digits.

    :param measured: of :func:`measure`.
    :param reference: what others found, in per cent.
    :param source: where the reference is from.
    """
    lines = [
        "| target | jobs | least | lower quartile | median | upper quartile | greatest | faster than the first, % "
        f"| reference{f' ({source})' if source else ''}, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows(measured, reference):
        lines.append("| " + " | ".join(str(value) for value in row.values()) + " |")
    return "\n".join([*lines, ""])


def figure(measured: Sequence[Measured], title: str, note: str = "") -> str:
    """Return box plots as an SVG document: quartiles, median, whiskers to least and greatest, and every repetition.

    :param measured: of :func:`measure`.
    :param title: above the figure.
    :param note: below it.
    """
    step = _round_step(max((max(each.seconds) for each in measured), default=0.0) / TICKS)
    longest = step * max(math.ceil(max((max(each.seconds) for each in measured), default=0.0) / step - 1e-9), 1)
    height = ROW * len(measured) + 2 * MARGIN + 20

    def x(seconds: float) -> float:
        return LEFT + seconds / longest * (WIDTH - LEFT - MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(_clipped(title))}</text>',
    ]
    for number, each in enumerate(measured):
        middle = MARGIN + ROW * number + ROW / 2
        low, median, high = each.quartiles
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(each.target)}</text>',
            _line(x(min(each.seconds)), middle, x(max(each.seconds)), middle),
            f'<rect x="{x(low):.1f}" y="{middle - 12}" width="{max(x(high) - x(low), 1):.1f}" height="24" '
            'fill="#cfe0f3" stroke="#23527c"/>',
            _line(x(median), middle - 12, x(median), middle + 12, width=2.5),
            *(f'<circle cx="{x(value):.1f}" cy="{middle}" r="2.5" fill="#c0392b"/>' for value in each.seconds),
        ]
    axis = MARGIN + ROW * len(measured)
    parts.append(_line(LEFT, axis, WIDTH - MARGIN, axis))
    for tick in range(round(longest / step) + 1):
        parts.append(f'<text x="{x(step * tick):.1f}" y="{axis + 18}" text-anchor="middle">{step * tick:.6g} s</text>')
    parts.append(f'<text x="{LEFT}" y="{axis + 36}" fill="#555">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _round_step(width: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below a width."""
    if width < 1e-7:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= width * (1 - 1e-9))


def _clipped(text: str) -> str:
    return text if len(text) <= TITLE else f"{text[: TITLE - 1]}…"


def _line(x1: float, y1: float, x2: float, y2: float, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#23527c" stroke-width="{width}"/>'
