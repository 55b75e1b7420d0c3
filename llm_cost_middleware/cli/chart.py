"""Small chart as SVG text: one line and some labelled points, without a plotting dependency."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _EDGE = 720, 440, 60
_STEPS = 4


class ChartPoint(NamedTuple):
    """Labelled point."""

    x: float
    y: float
    label: str
    hollow: bool = False


def chart(
    title: str, x_label: str, y_label: str, line: Sequence[tuple[float, float]] = (), points: Sequence[ChartPoint] = ()
) -> str:
    """Draw ``line`` and ``points`` over axes that fit them both."""
    drawn = [*line, *((point.x, point.y) for point in points)] or [(0.0, 0.0)]
    low_x, high_x = _span([x for x, _ in drawn])
    low_y, high_y = _span([y for _, y in drawn])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x)
        up = (y - low_y) / (high_y - low_y)
        return _EDGE + across * (_WIDTH - 2 * _EDGE), _HEIGHT - _EDGE - up * (_HEIGHT - 2 * _EDGE)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        '<style>text { font-size: 11px }</style><rect width="100%" height="100%" fill="white"/>',
        _text(_WIDTH / 2, 24, title, "middle"),
        _text(_WIDTH / 2, _HEIGHT - 14, x_label, "middle"),
        _text(8, 44, y_label),
    ]
    for step in range(_STEPS + 1):
        x, y = low_x + (high_x - low_x) * step / _STEPS, low_y + (high_y - low_y) * step / _STEPS
        across, _ = place(x, low_y)
        _, up = place(low_x, y)
        parts += [
            f'<path d="M{_EDGE} {up:.1f}H{_WIDTH - _EDGE}" stroke="#ddd"/>',
            _text(across, _HEIGHT - _EDGE + 18, f"{x:.3g}", "middle"),
            _text(_EDGE - 6, up + 4, f"{y:.3g}", "end"),
        ]
    if line:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="#26a" stroke-width="2"/>')
    for point in points:
        x, y = place(point.x, point.y)
        fill = "white" if point.hollow else "#c52"
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#c52"/>',
            _text(x + 7, y - 5, point.label),
        ]
    return "\n".join([*parts, "</svg>\n"])


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    # Never empty: ``place`` divides by the span, and a single point still needs axes around it.
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
