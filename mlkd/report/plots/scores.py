"""Drawings of scores: by language, against what an encoder costs, and of mined pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlkd.report.plots.colours import stand_in, system_style
from mlkd.report.plots.svg import NARROW_IN, Painter, Plot, annotate, draw, out_of_100
from mlkd.report.tables import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Most rows, inches from row to row, letter size in points.
DENSITIES = [(20, 0.25, 9.5), (45, 0.17, 8.5), (math.inf, 0.115, 6.5)]
# More intervals on one line hide each other: the mean then has them alone.
MAX_BARS = 4
NAME_LENGTH = 26
_MAX_STEPS = 16
_LINE_PT = 11
_Box = tuple[float, float, float, float]
_SHAPES = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}


@dataclass(frozen=True, slots=True)
class Costed:
    """A system with what it costs and what it scores."""

    system: str
    name: str
    cost: float
    cell: Cell


def score_plot(table: Table, systems: list[str]) -> Plot:
    """A dot for each system on one line per language, languages from the highest first value down, mean last."""
    sign = 1.0 if table.higher_is_better is False else -1.0
    languages = [row for row in table.rows if not row.is_mean]
    languages.sort(key=lambda row: math.inf if row.cells[0].value is None else sign * row.cells[0].value)
    ordered = languages + [row for row in table.rows if row.is_mean]
    # Tatoeba has 112 languages: the more rows, the closer they stand.
    pitch_in, letters = next((p, s) for most, p, s in DENSITIES if len(ordered) <= most)
    height = 0.55 + max(3, len(ordered)) * pitch_in
    styles = [system_style(name, systems) for name in table.systems]
    named = f"{table.name} per language: {', '.join(table.systems)}"
    return Plot(table.name, draw(named, _dot_painter(ordered, styles, table.metric, letters), height_in=height))


def cost_plot(title: str, points: Sequence[Costed], systems: list[str], axis: str, metric: str) -> Plot:
    """Scores with their intervals against a cost on a logarithmic axis; points of a cost above 0."""
    label = f"{title} against {axis}: {', '.join(point.system for point in points)}"
    return Plot(title, draw(label, _cost_painter(points, systems, axis, metric), height_in=2.9))


def similarity_histogram(language: str, found: Mapping[str, Any], limits: tuple[float, float] | None = None) -> Plot:
    """Mining scores of true and false pairs, each as a share of its kind, with the decision threshold.

    Args:
        language: the pair of languages.
        found: `edges`, counts `true` and `false`, `threshold` and perhaps `oracle_threshold`.
        limits: of the axis, for pictures that stand beside one another.
    """
    label = f"scores of true and false pairs, {language}"
    return Plot(language, draw(label, _histogram_painter(found, limits), width_in=NARROW_IN, height_in=2.1))


def _dot_painter(ordered: list[Row], styles: Sequence[tuple[str, str]], metric: str, letters: float) -> Painter:
    def paint(axes: Axes) -> None:
        for y, row in enumerate(ordered):
            defined = [cell.value for cell in row.cells if cell.value is not None]
            if defined:
                axes.plot([min(defined), max(defined)], [y, y], color=stand_in("--rule"), linewidth=2, zorder=1)
            bars = row.is_mean or len(row.cells) <= MAX_BARS
            for cell, (variable, marker) in reversed(list(zip(row.cells, styles, strict=True))):
                colour = stand_in(variable)
                if cell.value is not None:
                    size = 4.2 * letters * (1.6 if row.is_mean else 1.0)
                    if cell.interval and bars:
                        axes.plot(cell.interval, [y, y], color=colour, linewidth=3.4, alpha=0.35, zorder=2)
                    shape = _SHAPES[marker]
                    axes.scatter([cell.value], [y], s=size, color=colour, marker=shape, linewidths=0, zorder=3)
        axes.set_yticks(range(len(ordered)), [row.label for row in ordered], fontsize=letters)
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        if ordered and ordered[-1].is_mean and len(ordered) > 1:
            axes.axhline(len(ordered) - 1.5, color=stand_in("--rule"), linewidth=0.8)
        axes.grid(axis="x", visible=True)
        axes.grid(axis="y", visible=False)
        axes.spines["bottom"].set_visible(False)
        if out_of_100(metric):
            axes.set_xlim(min(-2.0, axes.get_xlim()[0]), 102)

    return paint


def _cost_painter(points: Sequence[Costed], systems: list[str], axis: str, metric: str) -> Painter:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def paint(axes: Axes) -> None:
        axes.set_xscale("log")
        for point in points:
            variable, marker = system_style(point.system, systems)
            colour, value = stand_in(variable), point.cell.value
            assert value is not None, "only scores are drawn"
            if point.cell.interval:
                axes.plot([point.cost] * 2, point.cell.interval, color=colour, linewidth=3.4, alpha=0.35, zorder=2)
            axes.scatter([point.cost], [value], s=52, color=colour, marker=_SHAPES[marker], linewidths=0, zorder=3)
        costs = [point.cost for point in points]
        # At least half a decade, so that equal costs are not drawn apart.
        room = max(1.6, (max(costs) / min(costs)) ** 0.12)
        axes.set_xlim(min(costs) / room, max(costs) * room)
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 102.0) if out_of_100(metric) else high)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(axis)
        _name_points(axes, points)

    return paint


def _name_points(axes: Axes, points: Sequence[Costed]) -> None:
    """Each system's name beside its point, where it meets no other name, no other point and no edge."""
    box = axes.get_window_extent()
    dots = axes.transData.transform([(point.cost, float(point.cell.value or 0)) for point in points])
    pixel_pt = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    radius, height = 5 / pixel_pt, _LINE_PT / pixel_pt
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in dots.tolist()]
    for point, (x, y) in sorted(zip(points, dots.tolist(), strict=True), key=lambda item: -item[1][1]):
        name = point.name if len(point.name) <= NAME_LENGTH else f"{point.name[: NAME_LENGTH - 1]}…"
        width = len(name) * 5.2 / pixel_pt
        starts = {"right": x - 8 / pixel_pt - width, "left": x + 8 / pixel_pt}
        # Beside the point where that is free, else further and further above or below it.
        heights = [y + sign * step * height / 2 for step in range(_MAX_STEPS) for sign in (-1, 1)]
        places = [
            (side, (start, middle - height / 2, start + width, middle + height / 2))
            for middle in heights
            for side, start in starts.items()
        ]
        side, chosen = next(
            (
                (side, place)
                for side, place in places
                if place[0] >= box.x0 and place[2] <= box.x1 and not any(_meet(place, other) for other in taken)
            ),
            places[0],
        )
        taken.append(chosen)
        offset = (-8 if side == "right" else 8, ((chosen[1] + chosen[3]) / 2 - y) * pixel_pt)
        placed: dict[str, Any] = {"xytext": offset, "ha": side, "va": "center"}
        if abs(offset[1]) > _LINE_PT:
            thin = {"arrowstyle": "-", "color": stand_in("--muted"), "linewidth": 0.7}
            placed["arrowprops"] = {**thin, "shrinkA": 0, "shrinkB": 4, "relpos": (float(side == "right"), 0.5)}
        annotate(axes, name, (point.cost, float(point.cell.value or 0)), stand_in("--ink"), **placed)


def _meet(box: _Box, other: _Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _short_number(value: float) -> str:
    """E.g. `3k`, `10M`.

    >>> _short_number(3000), _short_number(1e7), _short_number(30)
    ('3k', '10M', '30')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _histogram_painter(found: Mapping[str, Any], limits: tuple[float, float] | None) -> Painter:
    def paint(axes: Axes) -> None:
        for kind, variable in (("false", "--untrained"), ("true", "--student")):
            counts = [float(count) for count in found[kind]]
            shares = [100 * count / (sum(counts) or 1) for count in counts]
            axes.stairs(shares, found["edges"], fill=True, color=stand_in(variable), alpha=0.55)
        if limits is not None:
            axes.set_xlim(limits)
        threshold, oracle = found.get("threshold"), found.get("oracle_threshold")
        if oracle is not None and oracle != threshold:
            axes.axvline(oracle, color=stand_in("--muted"), linewidth=1.0, linestyle=(0, (1, 2)))
        if threshold is not None:
            axes.axvline(threshold, color=stand_in("--ink"), linewidth=1.2, linestyle=(0, (4, 3)))
            low, high = axes.get_xlim()
            on_left = threshold > (low + high) / 2
            side: dict[str, Any] = {"xytext": (-5, 0), "ha": "right"} if on_left else {"xytext": (5, 0)}
            placed = {"xycoords": ("data", "axes fraction"), "va": "top", **side}
            annotate(axes, f"threshold {threshold:.3f}", (threshold, 0.97), stand_in("--ink"), **placed)
        axes.set_xlabel("mining score")
        axes.set_ylabel("% of its pairs")

    return paint
