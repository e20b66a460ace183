"""Scores of several systems side by side, and the results.json they are kept in, with their item scores beside it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlkd.errors import fail
from mlkd.runtime.atomic_files import write_json
from mlkd.tasks.scoring.bootstrap import Comparison
from mlkd.tasks.scoring.item_scores_file import find_item_scores, read_item_scores, write_item_scores
from mlkd.tasks.scoring.scores import Score, TaskResult
from mlkd.version import __version__

FORMAT = 2  # 1 has no comparisons
ITEM_SCORES_FILE = "item_scores.safetensors"
_SAME_SCORE = 1e-6


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """What must agree for two numbers to stand in one row: the same items, scored in the same way."""

    task: str
    protocol: str
    data_sha256: str
    language: str
    metric: str
    count: int
    main: bool
    higher_is_better: bool | None


@dataclass(kw_only=True, slots=True)
class Results:
    """What was scored.

    Args:
        systems: names of the compared encoders in display order, e.g. `student`, `untrained`, `teacher`.
        results: system -> its task results; a system may lack a task (a teacher has no MSE to itself).
        describe: system -> facts about it (path, sha256, parameters, dimension, ...); JSON-able.
        comparisons: paired tests of the main scores between two systems.
        mlkd: the version that scored.
    """

    systems: list[str]
    results: dict[str, list[TaskResult]]
    describe: dict[str, dict[str, Any]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    mlkd: str = __version__

    def rows(self) -> dict[ScoreKey, dict[str, float | None]]:
        """Row -> `{system: value}` in order of first appearance.

        None is an undefined score, a missing system was not scored. The direction is known for main metrics only.
        """
        rows: dict[ScoreKey, dict[str, float | None]] = {}
        for system in self.systems:
            for result in self.results.get(system, []):
                for score in result.scores:
                    rows.setdefault(score_key(result, score), {})[system] = _finite(score.value)
        return rows

    def interval(self, key: ScoreKey, system: str) -> tuple[float, float] | None:
        """The 95 % interval of one number, from the task's `details["intervals"]["<language>/<metric>"]`."""
        for result in self.results.get(system, []):
            if (result.task, result.protocol, result.data_sha256) == (key.task, key.protocol, key.data_sha256):
                bounds = result.details.get("intervals", {}).get(f"{key.language}/{key.metric}")
                return (float(bounds[0]), float(bounds[1])) if bounds else None
        return None

    def comparison(self, key: ScoreKey, first: str, second: str) -> Comparison | None:
        """The paired test of one row between two systems, as `first` less `second`; None where there is none."""
        row = (key.task, key.protocol, key.data_sha256, key.language, key.metric)
        for c in self.comparisons:
            if (c.task, c.protocol, c.data_sha256, c.language, c.metric) == row:
                if (c.first, c.second) == (first, second):
                    return c
                if (c.first, c.second) == (second, first):
                    return replace(c, first=first, second=second, difference=-c.difference, low=-c.high, high=-c.low)
        return None


def score_key(result: TaskResult, score: Score) -> ScoreKey:
    """The row that a score stands in."""
    main = score.metric == result.main
    scored = (result.task, result.protocol, result.data_sha256)
    direction = result.higher_is_better if main else None
    return ScoreKey(*scored, score.language, score.metric, score.count, main, direction)


def write_results(path: Path, results: Results) -> None:
    """Write results.json, and item_scores.safetensors beside it; a reader never sees a half-written file."""
    item_scores = {
        _group_of(system, r): r.item_scores for system in results.systems for r in results.results.get(system, [])
    }
    write_item_scores(path.with_name(ITEM_SCORES_FILE), {group: found for group, found in item_scores.items() if found})
    rows = [_row_record(key, values) for key, values in results.rows().items()]
    details = [
        {"task": r.task, "protocol": r.protocol, "data_sha256": r.data_sha256, "system": system, "details": r.details}
        for system in results.systems
        for r in results.results.get(system, [])
    ]
    record = {
        "format": FORMAT,
        "mlkd": results.mlkd,
        "systems": results.systems,
        "describe": results.describe,
        "scores": rows,
        "details": details,
        "comparisons": [asdict(comparison) for comparison in results.comparisons],
    }
    write_json(path, _finite_tree(record))


def read_results(path: Path, *, with_item_scores: bool = False) -> Results:
    """Read what `write_results` wrote.

    Args:
        path: results.json, of this format or an earlier one.
        with_item_scores: also what the scores were computed from, where the file beside it is there.

    Raises:
        MlkdError: E301 no such file, E309 not a results file of these formats, or item scores of another one.
    """
    if not path.is_file():
        raise fail("E301", f"no such file '{path}'", remedy="mlkd-train and mlkd-eval write it when they finish")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise fail("E309", f"not JSON ({error})", where=str(path)) from None
    written = record.get("format") if isinstance(record, dict) else None
    if written not in (1, FORMAT):
        by = f"written by mlkd {record['mlkd']}, " if isinstance(record, dict) and "mlkd" in record else ""
        raise fail("E309", f"{by}format {written!r}; this mlkd reads 1 to {FORMAT}", where=str(path))
    try:
        results = _parse(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise fail("E309", f"not a results file: {type(error).__name__} {error}", where=str(path)) from None
    beside = find_item_scores(path.with_name(ITEM_SCORES_FILE)) if with_item_scores else None
    if beside is not None:
        _attach_item_scores(results, beside)
    return results


def _group_of(system: str, result: TaskResult) -> str:
    return f"{system}\t{result.task}"


def _attach_item_scores(results: Results, path: Path) -> None:
    item_scores = read_item_scores(path)
    for system, found in results.results.items():
        for result in found:
            values = {f"{score.language}/{score.metric}": score.value for score in result.scores}
            for key, items in item_scores.get(_group_of(system, result), {}).items():
                value, written = items.value(), values.get(key)
                if value != written and (value is None or written is None or abs(value - written) > _SAME_SCORE):
                    what = f"gives {value} for {result.task}/{key} of '{system}', results.json {written}"
                    raise fail("E309", what, where=str(path), remedy="both files must be of one evaluation")
                result.item_scores[key] = items


def _parse(record: dict[str, Any]) -> Results:
    found: dict[tuple[str, str, str, str], TaskResult] = {}
    results: dict[str, list[TaskResult]] = {system: [] for system in record["systems"]}
    for kept in record["details"]:
        scored = (kept["task"], kept["protocol"], kept["data_sha256"])
        result = TaskResult(scored[0], scored[1], "", True, scored[2], [], kept["details"])
        found[(kept["system"], *scored)] = result
        results[kept["system"]].append(result)
    for row in record["scores"]:
        for system, value in row["values"].items():
            result = found[(system, row["task"], row["protocol"], row["data_sha256"])]
            result.scores.append(Score(row["language"], row["metric"], value, row["count"]))
            if row["main"]:
                # TaskResult is frozen, and which metric is the main one is known only from its rows.
                object.__setattr__(result, "main", row["metric"])
                object.__setattr__(result, "higher_is_better", row["higher_is_better"])
    comparisons = [Comparison(**comparison) for comparison in record.get("comparisons", [])]
    return Results(
        systems=record["systems"],
        results=results,
        describe=record["describe"],
        comparisons=comparisons,
        mlkd=record["mlkd"],
    )


def _row_record(key: ScoreKey, values: dict[str, float | None]) -> dict[str, Any]:
    return {
        "task": key.task,
        "language": key.language,
        "metric": key.metric,
        "protocol": key.protocol,
        "count": key.count,
        "higher_is_better": key.higher_is_better,
        "main": key.main,
        "data_sha256": key.data_sha256,
        "values": values,
    }


def _finite_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_tree(item) for item in value]
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float | None) -> float | None:
    # JSON has no NaN, and a score that is not a number is what `undefined` means.
    return value if value is not None and math.isfinite(value) else None
