"""Line charts as inline SVG: one curve, axes with round ticks, and a dashed baseline to read the curve against.

Knows nothing of training, pages and themes: numbers in, markup out, styled by the page through class names (`grid`, `axis`, `line`,
`dot`, `base`, `value`). A plotting library would weigh more than the rest of the page together for three curves of a few points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 270
"""The view box; the page scales it."""

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 46
LABEL_WIDTH = 96
MOST_DOTS = 40
"""Longer curves are drawn without a dot a point."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A horizontal line to compare with."""

    label: str
    value: float


def line_chart(
    points: Sequence[tuple[float, float]], *, label: str, x_label: str, y_label: str, digits: int, baseline: Baseline | None = None
) -> str:
    """An `<svg>` of the points (x, y) in order of x, which counts from 1; points that are not finite are left out.

    `label` is what a screen reader says of the chart, `digits` how many decimals the last point's value is written with.
    At least one point must be finite.
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    assert points, "a chart shows at least one finite point"
    first, last = points[0][0], points[-1][0]
    x_low, x_high = (first - 0.5, last + 0.5) if first == last else (first, last)
    values = [y for _, y in points] + ([baseline.value] if baseline else [])
    y_ticks = ticks(*_padded(min(values), max(values)), most=5)
    y_low, y_high = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    decimals = _decimals(y_ticks[1] - y_ticks[0])
    for tick in y_ticks:
        y = down(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{tick:.{decimals}f}</text>')
    for tick in _epoch_ticks(first, last):
        x = across(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{tick:.0f}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP - 8}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT - 9}" y="{TOP - 12}" text-anchor="end">{escape(y_label)}</text>')
    if baseline:
        y = down(baseline.value)
        parts.append(f'<line class="base" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{escape(baseline.label)} {baseline.value:.{digits}f}"
        text_x, text_y, anchor = _free_place([(across(x), down(y)) for x, y in points], y)
        parts.append(f'<text class="base-label" x="{text_x}" y="{text_y:.1f}" text-anchor="{anchor}">{text}</text>')
    if len(points) > 1:
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in points)
        parts.append(f'<path class="line" d="M{path}"/>')
    for x, y in points if len(points) <= MOST_DOTS else points[-1:]:
        spoken = f"{x_label} {x:g}: {y:.{digits}f}"
        parts.append(f'<circle class="dot" cx="{across(x):.1f}" cy="{down(y):.1f}" r="4"><title>{escape(spoken)}</title></circle>')
    parts.append(_value_label(points, across(last), down(points[-1][1]), digits))
    parts.append("</svg>")
    return "".join(parts)


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """2 to `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) that span low < high."""
    assert low < high, f"{low} is not below {high}"
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = _decimals(step)
    return [round(index * step, decimals) for index in range(start, end + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    """Room for a curve that is a constant."""
    if high - low > 1e-9 * max(1.0, abs(low), abs(high)):
        return low, high
    room = 0.05 * max(abs(low), 0.1)
    return low - room, high + room


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _epoch_ticks(first: float, last: float) -> list[float]:
    """Whole numbers from first to last, and the first itself: a run is counted from 1, which no round step meets."""
    if first == last:
        return [first]
    inner = [tick for tick in ticks(first, last, most=6) if tick == int(tick) and first <= tick <= last]
    return [first, *(tick for tick in inner if tick - first > (last - first) / 16)]


def _free_place(curve: Sequence[tuple[float, float]], y: float) -> tuple[float, float, str]:
    """Where a label at a horizontal line at y is farthest from the curve: x, y of its base line, and the anchor; all drawn."""
    xs, ys = zip(*curve, strict=True)
    best, place = -1.0, (0.0, 0.0, "")
    for above in (True, False):
        for x, anchor, low in ((LEFT + 8, "start", LEFT + 8), (WIDTH - RIGHT - 4, "end", WIDTH - RIGHT - 4 - LABEL_WIDTH)):
            middle = y - 12 if above else y + 13
            if not TOP - 14 < middle < HEIGHT - BOTTOM - 8:
                continue
            samples = np.interp(np.linspace(low, low + LABEL_WIDTH, 12), xs, ys)
            # The last point has its value written beside it, about as far again.
            distance = min(float(np.abs(samples - middle).min()), abs(ys[-1] - middle) - 14 if anchor == "end" else math.inf)
            if distance > best:
                best, place = distance, (x, middle + 5, anchor)
    return place if place[2] else (LEFT + 8, y - 7, "start")


def _value_label(points: Sequence[tuple[float, float]], x: float, y: float, digits: int) -> str:
    """The last point's value, on the side of it that the curve does not come from, or well off the curve."""
    falling = len(points) > 1 and points[-1][1] < points[-2][1]
    room_below = y < HEIGHT - BOTTOM - 26
    text_y = y - 11 if not falling else y + 20 if room_below else y - 24
    anchor = "middle" if len(points) == 1 else "end"
    shift = 0 if len(points) == 1 else 5
    place = f'x="{x + shift:.1f}" y="{max(text_y, 12):.1f}" text-anchor="{anchor}"'
    return f'<text class="value" {place}>{points[-1][1]:.{digits}f}</text>'
