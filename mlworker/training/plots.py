"""Plots as SVG text, drawn with the page's own colours (classes s0, s1, … of its style)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

from mlworker.training.summary import Mean

Shape = Literal["disc", "ring", "square", "triangle", "diamond"]

_WIDTH: Final = 760
_LEFT: Final = 118
_RIGHT: Final = 56
_ROW: Final = 15  # px between two series of one protocol

_CORNERS: Final[dict[str, list[tuple[float, float]]]] = {
    "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
    "triangle": [(0, -5), (5, 4), (-5, 4)],
    "diamond": [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
}


@dataclass(frozen=True)
class Series:
    """What is drawn alike: a model, a rival or a publication; ``colour`` is a class of the page."""

    name: str
    colour: str
    shape: Shape
    values: dict[str, Mean]


def dot_plot(series: Sequence[Series], categories: Sequence[str], *, title: str) -> str:
    """A row per category, in it a mark with its interval for each series; x from 0 to 1."""
    parts: list[str] = []
    top = 12
    for category in categories:
        here = [each for each in series if category in each.values]
        height = max(1, len(here)) * _ROW + 14
        parts.append(f'<rect class="band" x="0" y="{top}" width="{_WIDTH}" height="{height - 6}"/>')
        middle = top + (height - 6) / 2
        parts.append(f'<text class="name" x="10" y="{middle + 4:.1f}">{escape(category)}</text>')
        for number, each in enumerate(here):
            y = top + 11 + number * _ROW
            parts.append(_mark_with_interval(each, each.values[category], y=y, of=category))
        top += height
    grid = []
    for tenth in range(0, 11, 2):
        x = _x(tenth / 10)
        grid.append(f'<line class="grid" x1="{x}" x2="{x}" y1="8" y2="{top - 4}"/>')
        grid.append(f'<text class="tick" x="{x}" y="{top + 12}">{tenth / 10:.1f}</text>')
    bands = [part for part in parts if "band" in part]
    rest = [part for part in parts if "band" not in part]
    return _svg([*bands, *grid, *rest], height=top + 20, title=title)


def line_plot(
    series: Sequence[tuple[Series, Sequence[Mean]]],
    *,
    title: str,
    x_title: str,
    low: float = 0.0,
    high: float = 1.0,
) -> str:
    """A line with its interval as a band, for each series, over 1, 2, …; y from low to high."""
    height, bottom, top, left = 300, 258, 14, 44
    most = max(len(means) for _, means in series)

    def at(step: int) -> float:
        return left + (step - 1) / max(most - 1, 1) * (_WIDTH - left - _RIGHT)

    def up(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = []
    digits = 1 if high - low == 1 else 2
    for tenth in range(0, 11, 2):
        value = low + (high - low) * tenth / 10
        y = up(value)
        parts.append(
            f'<line class="grid" x1="{at(1)}" x2="{at(most):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick end" x="{at(1) - 8}" y="{y + 4:.1f}">{value:.{digits}f}</text>'
        )
    shown = [step for step in range(1, most + 1) if most <= 10 or step == 1 or step % 2 == 0]
    parts += [
        f'<text class="tick" x="{at(step):.1f}" y="{bottom + 18}">{step}</text>' for step in shown
    ]
    middle = (at(1) + at(most)) / 2
    parts.append(f'<text class="tick" x="{middle:.1f}" y="{bottom + 36}">{escape(x_title)}</text>')
    labels: list[float] = []
    for each, means in series:
        points = [(at(step), up(mean.mean)) for step, mean in enumerate(means, start=1)]
        sure = [(m.low, m.high) for m in means if m.low is not None and m.high is not None]
        if len(sure) == len(means):
            lower = [(at(s), up(least)) for s, (least, _) in enumerate(sure, start=1)]
            upper = [(at(s), up(greatest)) for s, (_, greatest) in enumerate(sure, start=1)]
            outline = _path([*lower, *reversed(upper)])
            parts.append(f'<polygon class="fill {each.colour}" points="{outline}"/>')
        parts.append(f'<polyline class="line {each.colour}" points="{_path(points)}"/>')
        for step, ((x, y), mean) in enumerate(zip(points, means, strict=True), start=1):
            text = escape(f"{each.name}, {step}: {mean}")
            parts.append(f'<circle class="mark {each.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">')
            parts.append(f"<title>{text}</title></circle>")
        label = points[-1][1] + 4
        while any(abs(label - other) < 14 for other in labels):  # two curves that end together
            label += 14
        labels.append(label)
        parts.append(
            f'<text class="value {each.colour}" x="{points[-1][0] + 8:.1f}" y="{label:.1f}">'
            f"{means[-1].mean:.3f}</text>"
        )
    return _svg(parts, height=height, title=title)


def legend(series: Sequence[Series]) -> str:
    """The series' marks with their names."""
    items = "".join(
        f'<span class="key"><svg width="14" height="14" aria-hidden="true">'
        f"{_mark(each.shape, each.colour, x=7, y=7)}</svg>{escape(each.name)}</span>"
        for each in series
    )
    return f'<p class="legend">{items}</p>'


def _mark_with_interval(series: Series, mean: Mean, *, y: float, of: str) -> str:
    x = _x(mean.mean)
    interval = ""
    if mean.low is not None and mean.high is not None:
        interval = (
            f'<line class="interval {series.colour}" x1="{_x(mean.low)}" x2="{_x(mean.high)}"'
            f' y1="{y}" y2="{y}"/>'
        )
    return (
        f"<g><title>{escape(f'{series.name}, {of}: {mean}')}</title>{interval}"
        f"{_mark(series.shape, series.colour, x=x, y=y)}"
        f'<text class="value {series.colour}" x="{_WIDTH - 8}" y="{y + 4}" text-anchor="end">'
        f"{mean.mean:.3f}</text></g>"
    )


def _mark(shape: Shape, colour: str, *, x: float, y: float) -> str:
    if shape in ("disc", "ring"):
        kind = "mark" if shape == "disc" else "hollow"
        return f'<circle class="{kind} {colour}" cx="{x}" cy="{y}" r="4.5"/>'
    corners = _CORNERS[shape]
    kind = "hollow" if shape == "diamond" else "mark"
    return (
        f'<polygon class="{kind} {colour}"'
        f' points="{_path([(x + dx, y + dy) for dx, dy in corners])}"/>'
    )


def _x(value: float) -> float:
    return round(_LEFT + value * (_WIDTH - _LEFT - _RIGHT), 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(parts: Sequence[str], *, height: float, title: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
