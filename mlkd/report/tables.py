"""Score tables as a model: rows of printed values, which are best, which are as good, and their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlkd.report.results import Results, ScoreKey
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.tasks.scoring.bootstrap import Comparison

UNDEFINED = "undefined"
NOT_SCORED = "-"
MEAN = "mean"
SIGNIFICANT = 0.05
# How the field prints each metric, and to how many decimals.
UNITS = {
    "accuracy": ("%", 1),
    "f1": ("%", 1),
    "precision": ("%", 1),
    "recall": ("%", 1),
    "oracle_f1": ("%", 1),
    "oracle_precision": ("%", 1),
    "oracle_recall": ("%", 1),
    "error_rate": ("%", 1),
    "error": ("%", 1),
    "p@1": ("%", 1),
    "explained": ("%", 1),
    "mixed": ("%", 1),
    "spearman": ("x100", 1),
    "pearson": ("x100", 1),
    "joint": ("x100", 1),
    "separate": ("", 1),
    "bias": ("", 1),
    "mse": ("x100", 3),
    "sentences_per_s": ("", 0),
    "tokens_per_s": ("", 0),
    "peak_memory_mb": ("", 1),
    "weights_mb": ("", 1),
    "parameters": ("", 0),
    "parameters_without_embeddings": ("", 0),
    "dimension": ("", 0),
}


def unit_of(metric: str) -> tuple[str, int] | None:
    """How a metric is printed, and to how many decimals; None where nothing is known of it."""
    # One direction of retrieval, such as en->xx: accuracy, whatever the source language.
    return ("%", 1) if "->" in metric else UNITS.get(metric)


@dataclass(frozen=True, slots=True)
class Cell:
    """One number.

    Args:
        text: as printed; `undefined`, or `-` where the system was not scored.
        value: unrounded; None where there is no number.
        bounds: its 95 % interval as printed, None where there is none.
        interval: the same, unrounded.
        spread: half the interval's width as printed, e.g. `±3.0`.
        best: no other number of the row is better as printed.
        tied: not best, and a paired test does not tell it from the best.
    """

    text: str
    value: float | None = None
    bounds: tuple[str, str] | None = None
    interval: tuple[float, float] | None = None
    spread: str = ""
    best: bool = False
    tied: bool = False

    @property
    def brackets(self) -> str:
        """E.g. `[60.0, 66.1]`; empty without an interval."""
        return f"[{self.bounds[0]}, {self.bounds[1]}]" if self.bounds else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One language, or one metric of a task without languages: a cell for each system of the table."""

    label: str
    count: int
    cells: list[Cell]
    is_mean: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One task and metric: languages down, systems across, the mean last.

    Args:
        task: its name.
        metric: the main one, or the one asked for.
        protocol: of the task.
        data_sha256: of what was scored.
        higher_is_better: direction of `metric`; None where it has none.
        systems: those that were scored, in display order.
        models: their hashes, empty where unknown.
        rows: languages; or metrics, where the task has scores of no language.
        of_languages: whether rows are languages.
    """

    task: str
    metric: str
    protocol: str
    data_sha256: str
    higher_is_better: bool | None
    systems: list[str]
    models: list[str]
    rows: list[Row]
    of_languages: bool = True

    @property
    def name(self) -> str:
        """E.g. `tatoeba accuracy (%)`."""
        return metric_name(self.task, self.metric) if self.of_languages else self.task

    @property
    def direction(self) -> str:
        """E.g. `higher is better`."""
        words = {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]
        return words if self.of_languages or not words else f"{words} for {self.metric.replace('_', ' ')}"

    @property
    def title(self) -> str:
        """E.g. `tatoeba accuracy (%), higher is better`: unit and direction are said here, once."""
        return ", ".join(filter(None, [self.name, self.direction]))

    @property
    def source(self) -> str:
        """What makes its numbers comparable, e.g. `protocol laser; data 5f0c1b2a3d4e`."""
        parts = {"protocol": self.protocol, "data": self.data_sha256[:HASH_DIGITS]}
        return "; ".join(f"{name} {value}" for name, value in parts.items() if value)

    @property
    def model_hashes(self) -> dict[str, str]:
        """System -> the first digits of its hash, those without one left out."""
        known = zip(self.systems, self.models, strict=True)
        return {system: sha256[:HASH_DIGITS] for system, sha256 in known if sha256}

    @property
    def has_intervals(self) -> bool:
        return any(cell.bounds for row in self.rows for cell in row.cells)

    @property
    def mean(self) -> Row | None:
        return next((row for row in self.rows if row.is_mean), None)


def metric_name(task: str, metric: str) -> str:
    """Task, metric and unit.

    >>> metric_name("tatoeba", "accuracy"), metric_name("mse", "mse"), metric_name("lm", "perplexity")
    ('tatoeba accuracy (%)', 'mse (x100)', 'lm perplexity')
    """
    unit, _ = unit_of(metric) or ("", 0)
    return f"{task if task == metric else f'{task} {metric}'}{f' ({unit})' if unit else ''}"


def build_tables(results: Results, *, main_only: bool = True) -> list[Table]:
    """One table for each task, protocol, data set and metric.

    Args:
        results: what was scored.
        main_only: leave out secondary metrics, but not those of a task whose main one is of no language (its size, its
            speed): these stand below one another.
    """
    groups: dict[tuple[str, str, str], dict[ScoreKey, dict[str, float | None]]] = {}
    for key, values in results.rows().items():
        groups.setdefault((key.task, key.protocol, key.data_sha256), {})[key] = values
    build = _Builder(results)
    tables = []
    for found in groups.values():
        rows = found
        if all(key.language == MEAN for key in rows if key.main) and any(key.main for key in rows):
            tables.append(build.of_metrics({key: values for key, values in rows.items() if key.language == MEAN}))
            rows = {key: values for key, values in rows.items() if key.language != MEAN}
        for metric in dict.fromkeys(key.metric for key in rows if key.main or not main_only):
            tables.append(build.of_languages({key: values for key, values in rows.items() if key.metric == metric}))
    return tables


def format_value(value: float | None, metric: str) -> str:
    """The value as tables print it.

    >>> format_value(63.149, "accuracy"), format_value(None, "spearman"), format_value(0.12346, "perplexity")
    ('63.1', 'undefined', '0.1235')
    """
    if value is None:
        return UNDEFINED
    unit = unit_of(metric)
    return f"{value:,.{unit[1]}f}" if unit is not None else f"{value:.4g}"


class _Builder:
    """Rows of one `Results`, whose comparisons are found by row and systems."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._tests: dict[tuple[Any, ...], Comparison] = {}
        for c in results.comparisons:
            row = (c.task, c.protocol, c.data_sha256, c.language, c.metric)
            self._tests[(*row, frozenset((c.first, c.second)))] = c

    def of_languages(self, rows: dict[ScoreKey, dict[str, float | None]]) -> Table:
        ordered = sorted(rows.items(), key=lambda item: item[0].language == MEAN)  # stable: the mean goes last
        return self._table(ordered, lambda key: key.language, of_languages=True)

    def of_metrics(self, rows: dict[ScoreKey, dict[str, float | None]]) -> Table:
        ordered = sorted(rows.items(), key=lambda item: not item[0].main)
        return self._table(
            ordered, lambda key: metric_name(key.metric, key.metric).replace("_", " "), of_languages=False
        )

    def _table(
        self,
        rows: Sequence[tuple[ScoreKey, dict[str, float | None]]],
        label: Callable[[ScoreKey], str],
        *,
        of_languages: bool,
    ) -> Table:
        first = rows[0][0]
        systems = [name for name in self.results.systems if any(name in values for _, values in rows)]
        models = [str(self.results.describe.get(name, {}).get("sha256") or "") for name in systems]
        built = [
            Row(label(key), key.count, self._cells(key, values, systems), of_languages and key.language == MEAN)
            for key, values in rows
        ]
        scored = (first.task, first.metric, first.protocol, first.data_sha256, first.higher_is_better)
        return Table(*scored, systems, models, built, of_languages)

    def _cells(self, key: ScoreKey, values: dict[str, float | None], systems: list[str]) -> list[Cell]:
        defined = {name: value for name, value in values.items() if value is not None}
        leader = ""
        if key.higher_is_better is not None and len(defined) > 1:
            leader = (max if key.higher_is_better else min)(defined, key=lambda name: defined[name])
        # Compared as printed: of two equal numbers on the page neither may look better than the other.
        best = format_value(defined[leader], key.metric) if leader else ""
        return [self._cell(key, name, values, best, leader) for name in systems]

    def _cell(self, key: ScoreKey, name: str, values: dict[str, float | None], best: str, leader: str) -> Cell:
        if name not in values:
            return Cell(NOT_SCORED)
        value = values[name]
        text = format_value(value, key.metric)
        if value is None:
            return Cell(text)
        interval = self.results.interval(key, name)
        bounds = (format_value(interval[0], key.metric), format_value(interval[1], key.metric)) if interval else None
        spread = f"±{format_value((interval[1] - interval[0]) / 2, key.metric)}" if interval else ""
        test = self._tests.get(
            (key.task, key.protocol, key.data_sha256, key.language, key.metric, frozenset((leader, name)))
        )
        tied = text != best and test is not None and test.p_holm >= SIGNIFICANT
        return Cell(text, value, bounds, interval, spread, text == best, tied)
