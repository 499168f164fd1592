"""Pictures of the report, as inline SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .report import ComparedTensor, sqnr_text, threshold_text
from .similarity import Similarity

_BARS = 150  # per histogram, at most
_ONE = 0.06  # the height of a count of one, as a share of the histogram's, so that it is visible
_TICKS = 5  # per axis, at most
_HIGHEST_SQNR = 100.0  # higher ones are drawn like exact ones


@dataclass(frozen=True)
class _Frame:
    """A picture's size, and the area where values with x from 0 to ``end`` are drawn."""

    width: int
    height: int
    end: float
    left: int = 44
    right: int = 8
    top: int = 18
    bottom: int = 18

    @property
    def floor(self) -> int:
        return self.height - self.bottom

    @property
    def depth(self) -> int:
        return self.floor - self.top

    def x(self, value: float) -> float:
        return self.left + (self.width - self.left - self.right) * value / self.end

    def svg(self, title: str, parts: Sequence[str]) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img">'
            f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
        )

    def level(self, y: float, label: str) -> str:
        """Draw a horizontal line with its label."""
        return (
            f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{self.left - 4}" y="{y + 3:.1f}" text-anchor="end">{label}</text>'
        )


def histogram_picture(tensor: ComparedTensor) -> str:
    """Return a histogram of an activation's magnitudes and its limits, or an empty string."""
    statistic, threshold = tensor.histogram, tensor.threshold
    if statistic is None or statistic.non_finite or not isinstance(threshold, float):
        return ""
    ends = [threshold] if tensor.least in (None, 0) else [threshold, abs(tensor.least or 0)]
    furthest = max(ends)
    bins = math.ceil(max(statistic.abs_max, furthest) * 1.01 / statistic.bin_width)
    if not bins:
        return ""
    bins_per_bar = max(1, math.ceil(bins / _BARS))
    counts = np.add.reduceat(statistic.counts, np.arange(0, statistic.counts.size, bins_per_bar))
    bar = bins_per_bar * statistic.bin_width
    frame = _Frame(340, 150, bar * math.ceil(bins / bins_per_bar))
    decades = max(1, math.ceil(math.log10(max(1, int(counts.max())))))

    def height(count: float) -> float:
        return frame.depth * (_ONE + (1 - _ONE) * math.log10(count) / decades)

    every = math.ceil(decades / _TICKS)
    parts = [
        frame.level(frame.floor - height(10**decade), _count_text(10**decade))
        for decade in range(0, decades + 1, every)
    ]
    paths = {"bars": "", "beyond": ""}
    width = frame.x(bar) - frame.x(0)
    for index in np.flatnonzero(counts).tolist():
        up = height(int(counts[index]))
        kind = "beyond" if index * bar >= furthest else "bars"
        paths[kind] += f"M{frame.x(index * bar):.1f} {frame.floor}v{-up:.1f}h{width:.2f}v{up:.1f}z"
    parts += [f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path]
    parts += [
        f'<line class="threshold" x1="{frame.x(end):.1f}" x2="{frame.x(end):.1f}" '
        f'y1="{frame.top - 3}" y2="{frame.floor}"/>'
        for end in ends
    ]
    x, anchor = f"{frame.x(furthest):.1f}", "end" if furthest > frame.end / 2 else "start"
    parts.append(
        f'<text class="threshold" x="{x}" y="{frame.top - 6}" text-anchor="{anchor}">'
        f"{'threshold' if tensor.least is None else 'range'} {threshold_text(tensor)}</text>"
    )
    parts += [
        f'<text x="{frame.x(tick):.1f}" y="{frame.height - 5}" text-anchor="middle">{tick:g}</text>'
        for tick in _ticks(0.97 * frame.end)
    ]
    return frame.svg(f"histogram of |{tensor.name}|", parts)


def profile_picture(tensors: Sequence[ComparedTensor]) -> str:
    """Plot the SQNR of activations in program order: their own, and with inherited errors."""
    lines = {
        "own": [(i, t, t.own) for i, t in enumerate(tensors) if t.own],
        "total": [(i, t, t.error) for i, t in enumerate(tensors) if t.error],
    }
    drawn = [_drawn_sqnr(similarity) for line in lines.values() for _, _, similarity in line]
    if not drawn:
        return ""
    lowest = 10 * math.floor(min(0.0, *drawn) / 10)
    highest = 10 * math.ceil(max(10.0, *drawn) / 10)
    width = min(max(_LEAST_WIDTH, _WIDTH_OF_TENSOR * len(tensors)), 800)
    frame = _Frame(width, 240, float(len(tensors)))

    def y(sqnr: float) -> float:
        return frame.floor - frame.depth * (sqnr - lowest) / (highest - lowest)

    parts = [frame.level(y(tick), f"{tick} dB") for tick in range(lowest, highest + 1, 10)]
    for kind, line in lines.items():
        points = [
            (frame.x(i + 0.5), y(_drawn_sqnr(similarity)), t, similarity)
            for i, t, similarity in line
        ]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _, _ in points)
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        parts += [
            f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="2.5">'
            f"<title>{escape(t.name)}: {sqnr_text(similarity)} dB</title></circle>"
            for left, top, t, similarity in points
        ]
    parts += [
        f'<text class="total" x="{frame.left}" y="11">SQNR</text>',
        f'<text class="own" x="{frame.left + 40}" y="11">own</text>',
        f'<text x="{frame.left + 70}" y="11">of the activations, in their order</text>',
    ]
    picture = frame.svg("SQNR of the activations in the order of the program", parts)
    sizes = f"min-width: {0.8 * width:.0f}px; max-width: {1.4 * width:.0f}px"
    return f'<div class="scroll"><div style="{sizes}">{picture}</div></div>'


_LEAST_WIDTH, _WIDTH_OF_TENSOR = 350, 16  # in pixels: the text is readable, on a phone, too


def _drawn_sqnr(similarity: Similarity) -> float:
    if math.isnan(similarity.sqnr):
        return 0.0
    return min(max(similarity.sqnr, -20.0), _HIGHEST_SQNR)


def _count_text(count: int) -> str:
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{count // 10**power}{letter}"
    return str(count)


def _ticks(end: float) -> list[float]:
    """Return round numbers from 0 to ``end``."""
    rough = end / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    return [step * i for i in range(math.floor(end / step) + 1)]
