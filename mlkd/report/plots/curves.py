"""Curves of a training run as small SVG that takes its colours and letters from the page around it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlkd.report.plots.colours import SERIES, stand_in, system_colour
from mlkd.report.plots.svg import Painter, Plot, annotate, draw, out_of_100
from mlkd.report.results import Results
from mlkd.report.tables import MEAN, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUCKETS = 80
SHARE = "gradient_share/"
NUM_NAMED_CURVES = 12


def loss_curves(lines: list[dict[str, Any]]) -> list[Plot]:
    """One plot for the total loss and one for each term, and the terms' shares of the gradient."""
    train = _by_step(lines, "train")
    keys = _keys(train)
    terms = [key for key in keys if key.startswith("loss/") and key.count("/") == 1]
    if len(terms) == 1 and _series(train, terms[0]) == _series(train, "loss"):
        terms = []  # a single term with weight 1 is the total again
    plots = []
    for key in (["loss"] if "loss" in keys else []) + terms:
        steps, values = _series(train, key)
        if steps:
            name = "total loss" if key == "loss" else key.removeprefix("loss/") + " term"
            plots.append(Plot(name, draw(f"training loss: {name}", _loss_painter(steps, values))))
    shares = {key.removeprefix(SHARE): _series(train, key) for key in _keys(train) if key.startswith(SHARE)}
    if len(shares) > 1:
        plots.append(Plot("share of the gradient (%)", draw("share of the gradient", _share_painter(shares))))
    return plots


def evaluation_curves(lines: list[dict[str, Any]], results: Results | None) -> list[Plot]:
    """Main scores against steps, each language thin and the mean bold, the other systems as level lines."""
    evaluated = _by_step(lines, "eval")
    keys = [key for key in _keys(evaluated) if key.count("/") == 2]
    mains = {(r.task, r.main) for rs in results.results.values() for r in rs} if results else None
    plots = []
    for task, metric in dict.fromkeys((key.split("/")[0], key.split("/")[2]) for key in keys):
        own = [key for key in keys if key.split("/")[0] == task and key.split("/")[2] == metric]
        known = mains is None or (task, metric) in mains or task not in {name for name, _ in mains}
        if known and f"{task}/{MEAN}/{metric}" in own:
            curves = {key.split("/")[1]: _series(evaluated, key) for key in own}
            levels = _levels(results, task, metric)
            title = metric_name(task, metric)
            plots.append(Plot(title, draw(f"{title} against training step", _curve_painter(curves, levels, metric))))
    return plots


def _keys(by_step: dict[int, dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for values in by_step.values() for key in values))


def _by_step(lines: list[dict[str, Any]], kind: str) -> dict[int, dict[str, Any]]:
    """Step -> its last line: a run that was resumed repeats the steps after its last checkpoint."""
    found = {int(line["step"]): line for line in lines if line.get("kind") == kind and "step" in line}
    return dict(sorted(found.items()))


def _series(by_step: dict[int, dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    pairs = [(step, line.get(key)) for step, line in by_step.items()]
    kept = [(step, float(v)) for step, v in pairs if isinstance(v, int | float) and math.isfinite(v)]
    return [step for step, _ in kept], [value for _, value in kept]


def _levels(results: Results | None, task: str, metric: str) -> dict[str, float]:
    """System -> mean score, for the systems that do not change during training."""
    found: dict[str, float] = {}
    for system in ("untrained", "teacher"):
        for result in results.results.get(system, []) if results else []:
            value = result.as_metrics().get(f"{task}/{MEAN}/{metric}")
            if value is not None and math.isfinite(value):
                found[system] = value
    return found


def _bucket(steps: list[int], values: list[float]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean step, mean, least and greatest value of at most BUCKETS runs of neighbours."""
    size = math.ceil(len(steps) / BUCKETS)
    parts = [slice(i, i + size) for i in range(0, len(steps), size)]
    means = [sum(values[p]) / len(values[p]) for p in parts]
    centres = [sum(steps[p]) / len(steps[p]) for p in parts]
    return centres, means, [min(values[p]) for p in parts], [max(values[p]) for p in parts]


def _loss_painter(steps: list[int], values: list[float]) -> Painter:
    def paint(axes: Axes) -> None:
        centres, means, lows, highs = _bucket(steps, values)
        axes.fill_between(centres, lows, highs, color=stand_in("--student"), alpha=0.2, linewidth=0)
        axes.plot(centres, means, color=stand_in("--student"), linewidth=1.8)
        if min(values) > 0 and max(values) / min(values) > 30:
            axes.set_yscale("log")
        elif min(values) >= 0:
            axes.set_ylim(bottom=0)
        _step_axis(axes)

    return paint


def _share_painter(shares: dict[str, tuple[list[int], list[float]]]) -> Painter:
    def paint(axes: Axes) -> None:
        ends = {}
        for i, (term, (steps, values)) in enumerate(shares.items()):
            centres, means, _, _ = _bucket(steps, [100 * value for value in values])
            axes.plot(centres, means, color=stand_in(SERIES[i % len(SERIES)]), linewidth=1.8)
            ends[term] = ([round(centres[-1])], [means[-1]])
        axes.set_ylim(-2, 102)
        _step_axis(axes)
        _name_ends(axes, ends)

    return paint


def _curve_painter(curves: dict[str, tuple[list[int], list[float]]], levels: dict[str, float], metric: str) -> Painter:
    def paint(axes: Axes) -> None:
        marker = "o" if max(len(steps) for steps, _ in curves.values()) <= 30 else ""
        languages = {name: curve for name, curve in curves.items() if name != MEAN and curve[0]}
        for steps, values in languages.values():
            axes.plot(steps, values, color=stand_in("--student"), linewidth=0.9, alpha=0.4)
        steps, values = curves[MEAN]
        axes.plot(steps, values, color=stand_in("--student"), linewidth=2.4, marker=marker, markersize=4)
        for system, level in levels.items():
            axes.axhline(level, color=stand_in(system_colour(system, [])), linewidth=1.3, linestyle=(0, (4, 3)))
        low, high = axes.get_ylim()
        axes.set_ylim(0 if 0 < low < high / 2 else low, min(high, 102.0) if out_of_100(metric) else high)
        _step_axis(axes)
        for system, level in levels.items():
            colour = stand_in(system_colour(system, []))
            placed = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "ha": "right"}
            annotate(axes, system, (0.995, level), colour, **placed)
        if len(languages) <= NUM_NAMED_CURVES:
            _name_ends(axes, languages)

    return paint


def _name_ends(axes: Axes, curves: dict[str, tuple[list[int], list[float]]]) -> None:
    """Each language's name beside the end of its curve, pushed down where two would overlap."""
    low, high = axes.get_ylim()
    previous = math.inf
    for name, (steps, values) in sorted(curves.items(), key=lambda item: -item[1][1][-1]):
        previous = min(values[-1], previous - (high - low) * 0.055)
        annotate(axes, name, (steps[-1], previous), stand_in("--muted"), xytext=(6, 0), va="center")


def _step_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("step")
