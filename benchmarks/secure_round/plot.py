"""A small SVG with two logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WIDTH, _HEIGHT, _EDGE, _LABELS = 640, 400, 60, 190


@dataclass(frozen=True)
class Line:
    """Points (x, y), all above 0, in one colour; a dashed line is what theory says."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False


def draw_plot(title: str, lines: Sequence[Line]) -> str:
    """The plot as an SVG document, with a tick a power of ten."""
    points = np.log10([point for line in lines for point in line.points])
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (np.log10([x, y]) - low) / np.maximum(high - low, 1)
        return (
            round(float(_EDGE + across * (_WIDTH - 2 * _EDGE)), 1),
            round(float(_HEIGHT - _EDGE - up * (_HEIGHT - 2 * _EDGE)), 1),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + _LABELS} {_HEIGHT}" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_EDGE}" y="30" font-size="14">{title}</text>',
    ]
    for power in range(int(low[0]), int(high[0]) + 1):
        x, y = place(10.0**power, 10.0 ** low[1])
        parts.append(f'<path d="M{x} {y}V{_EDGE}" stroke="#ddd"/><text x="{x - 8}" y="{y + 20}">{10**power}</text>')
    for power in range(int(low[1]), int(high[1]) + 1):
        x, y = place(10.0 ** low[0], 10.0**power)
        parts.append(
            f'<path d="M{x} {y}H{_WIDTH - _EDGE}" stroke="#ddd"/><text x="8" y="{y + 4}">{10.0**power:g}</text>'
        )
    for line in lines:
        places = [place(*point) for point in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dashes}/>')
    # Names that would stand on each other are moved down.
    below = 0.0
    for line in sorted(lines, key=lambda line: place(*line.points[-1])[1]):
        x, y = place(*line.points[-1])
        below = max(y + 4, below + 14)
        parts.append(f'<text x="{x + 8}" y="{round(below, 1)}" fill="{line.colour}">{line.name}</text>')
    return "\n".join([*parts, "</svg>", ""])
