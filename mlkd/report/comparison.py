"""Comparison of systems in a report: who they are, what they cost, how sure their differences are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mlkd.report.markup import differences_html
from mlkd.report.plots.scores import Costed, cost_plot, similarity_histogram
from mlkd.report.results import Results
from mlkd.report.tables import MEAN, Table
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.tasks.scoring.bootstrap import Comparison

STUDENT = "student"
# All pairs of so many systems; of more, each against the best.
MAX_ALL_PAIRS = 4
COSTS = {"parameters_without_embeddings": "parameters without embeddings", "sentences_per_s": "sentences per second"}
# Histograms of so many systems are seen at once; those of further ones are folded.
MAX_OPEN_SYSTEMS = 3


@dataclass(frozen=True, slots=True)
class Histograms:
    """Mining scores of one system: title, counts and drawing for each task and pair of languages."""

    system: str
    is_open: bool
    drawings: list[tuple[str, str, str]]


def system_rows(results: Results, names: Mapping[str, str]) -> list[dict[str, str]]:
    """One row for each system; what is unknown is empty."""
    rows = []
    for system in results.systems:
        facts = results.describe.get(system, {})
        costs = _costs_of(results, system)
        counts = {key: costs.get(key, facts.get(key)) for key in ("parameters", "parameters_without_embeddings")}
        speed = costs.get("sentences_per_s")
        rows.append({
            "name": names[system],
            "full": system if names[system] != system else "",
            "model": str(facts.get("sha256") or "")[:HASH_DIGITS],
            **{key: "" if count is None else f"{count:,.0f}" for key, count in counts.items()},
            "dimension": str(facts.get("dimension") or ""),
            "speed": "" if speed is None else f"{speed:,.0f}",
        })  # fmt: skip
    return rows


def cost_plots(results: Results, tables: Sequence[Table], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """The mean of each table against each cost that at least two systems differ in: title, drawing."""
    plots = []
    for table in tables:
        row = table.mean
        if row is None:
            continue
        for cost, axis in COSTS.items():
            points = [
                Costed(system, names[system], float(value), cell)
                for system, cell in zip(table.systems, row.cells, strict=True)
                if (value := _cost(results, system, cost)) and cell.value is not None
            ]
            if len({point.cost for point in points}) > 1:
                plot = cost_plot(table.name, points, results.systems, axis, table.metric)
                plots.append((plot.title, plot.svg))
    return plots


def differences(results: Results, tables: Sequence[Table], names: Mapping[str, str]) -> list[str]:
    """A `<tbody>` for each table whose mean was tested."""
    found = []
    for table in tables:
        tests = [test for pair in _pairs(table) if (test := _mean_test(results, table, *pair)) is not None]
        if tests:
            found.append(differences_html(table.title, tests, names))
    return found


def histograms(results: Results, names: Mapping[str, str]) -> list[Histograms]:
    """Of every task that keeps its mining scores in `details["mining"]`; one axis for each pair of languages.

    A student's alone where there is one: the others are what it is measured by.
    """
    systems = [STUDENT] if STUDENT in results.systems else results.systems
    kept = {system: dict(_mined(results, system)) for system in systems}
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    for mined in kept.values():
        for key, histogram in mined.items():
            low, high = histogram["edges"][0], histogram["edges"][-1]
            before = limits.get(key, (low, high))
            limits[key] = (min(before[0], low), max(before[1], high))
    found: list[Histograms] = []
    for system, mined in kept.items():
        drawings = []
        for (task, pair), histogram in mined.items():
            counts = f"{sum(histogram['true']):,} true and {sum(histogram['false']):,} false"
            drawings.append((f"{task} {pair}", counts, similarity_histogram(pair, histogram, limits[task, pair]).svg))
        if drawings:
            found.append(Histograms(names[system], len(found) < MAX_OPEN_SYSTEMS, drawings))
    return found


def _mined(results: Results, system: str) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for result in results.results.get(system, []):
        for pair, histogram in result.details.get("mining", {}).items():
            if histogram["edges"]:
                yield (result.task, pair), histogram


def _cost(results: Results, system: str, name: str) -> float | None:
    measured = _costs_of(results, system).get(name)
    return results.describe.get(system, {}).get(name) if measured is None else measured


def _costs_of(results: Results, system: str) -> dict[str, float]:
    """What a task measured of the system's size and speed, by metric."""
    return {
        score.metric: score.value
        for result in results.results.get(system, [])
        if result.main == "sentences_per_s"
        for score in result.scores
        if score.language == MEAN and score.value is not None
    }


def _pairs(table: Table) -> list[tuple[str, str]]:
    """Those that are shown: the student's; or all, the better system first; or of many systems, the best's."""
    if STUDENT in table.systems:
        return [(STUDENT, other) for other in table.systems if other != STUDENT]
    if table.mean is None:
        return []
    values = {s: cell.value for s, cell in zip(table.systems, table.mean.cells, strict=True) if cell.value is not None}
    ranked = sorted(values, key=lambda system: values[system], reverse=table.higher_is_better is not False)
    return [(a, b) for a, b in combinations(ranked, 2) if a == ranked[0] or len(ranked) <= MAX_ALL_PAIRS]


def _mean_test(results: Results, table: Table, first: str, second: str) -> Comparison | None:
    for key in results.rows():
        row = (key.task, key.protocol, key.data_sha256, key.metric, key.language)
        if row == (table.task, table.protocol, table.data_sha256, table.metric, MEAN):
            return results.comparison(key, first, second)
    return None
