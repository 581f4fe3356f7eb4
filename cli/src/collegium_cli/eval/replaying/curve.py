"""The learning curve as a table and as a picture (SVG, made of text). Pure. One rule: both show the same points."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

Point = Mapping[str, float]

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 250, 70, 34, 34
_COST: Final = (
    ("cost_share", "#1f6feb", "cost of these rows"),
    ("cumulative_cost_share", "#8b949e", "of all so far"),
    ("cumulative_cost_share_with_probes", "#d29922", "of all so far, with probes"),
)
_QUALITY: Final = (("quality", "#1f6feb", "quality"), ("teacher_quality", "#8b949e", "always the teacher"))


def as_csv(points: Sequence[Point]) -> str:
    """Returns the points as CSV with a head line."""
    out = io.StringIO()
    if points:
        writer = csv.DictWriter(out, fieldnames=list(points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
    return out.getvalue()


def as_svg(points: Sequence[Point], title: str) -> str:
    """Returns two pictures, one over the other: cost beside always the teacher, and quality."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{2 * HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{2 * HEIGHT}" fill="white"/>',
        *_panel(points, f"{title}: cost, as a share of always asking the teacher", _COST, 0, from_zero=True),
        *_panel(points, "quality of the same rows", _QUALITY, HEIGHT, from_zero=False),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(
    points: Sequence[Point], title: str, series: Sequence[tuple[str, str, str]], down: int, *, from_zero: bool
) -> list[str]:
    values = [point[name] for point in points for name, _, _ in series] or [0.0, 1.0]
    low = 0.0 if from_zero else max(0.0, min(values) - 0.05)
    high = max(*values, 1.0 if from_zero else low + 0.1)
    last = max([point["queries"] for point in points], default=1) or 1
    wide, tall = WIDTH - LEFT - 20, HEIGHT - TOP - BOTTOM

    def across(queries: float) -> float:
        return LEFT + wide * queries / last

    def up(value: float) -> float:
        return down + TOP + tall * (1.0 - (value - low) / (high - low))

    parts = [f'<text x="{LEFT}" y="{down + 16}" font-size="13">{escape(title)}</text>']
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(f'<path d="M{LEFT} {up(value):.1f}H{WIDTH - 20}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        queries = last * step / 4
        parts.append(
            f'<text x="{across(queries):.1f}" y="{down + HEIGHT - 14}" text-anchor="middle">{queries:.0f}</text>'
        )
    for place, (name, colour, label) in enumerate(series):
        line = _line(points, name, across, up)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(f'<text x="{LEFT + 190 * place}" y="{down + 30}" fill="{colour}">{escape(label)}</text>')
    return parts


def _line(points: Sequence[Point], name: str, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    return " ".join(f"{across(point['queries']):.1f},{up(point[name]):.1f}" for point in points)
