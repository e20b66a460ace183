"""Results of several evaluations in one table: only numbers over the same items, scored in the same way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlkd.errors import MlkdError, Problem
from mlkd.report.results import Results, ScoreKey, score_key
from mlkd.tasks.scoring.bootstrap import Comparison, compare_systems

_SETTINGS = ("sha256", "pooling", "layer", "prompt", "max_length")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Merged:
    """The comparable part of several results, and in words what else there was."""

    results: Results
    num_left_out: int
    reasons: list[str]


def merge_results(found: Mapping[Path, Results], *, allow_partial: bool, num_resamples: int) -> Merged:
    """Put the systems of several results.json side by side.

    Args:
        found: by path of the file.
        allow_partial: leave out what is not in all files, instead of refusing; something must be left.
        num_resamples: of the intervals that paired tests between the systems go with, where item scores are there.

    Raises:
        MlkdError: E322 for each task that is not the same in all files, naming the field and its values.
    """
    folders = _short_names([path.parent for path in found])
    rows = [set(results.rows()) for results in found.values()]
    shared = set.intersection(*rows)
    problems = list(_differences(dict(zip(folders, found.values(), strict=True))))
    if problems and (not allow_partial or not shared):
        remedy = "allow_partial=true shows the part that can be compared" if shared else ""
        raise MlkdError([replace(problem, remedy=problem.remedy or remedy) for problem in problems])
    parts = [_only(results, shared) for results in found.values()]
    names = _system_names(parts, folders)
    merged = Results(systems=list(dict.fromkeys(n for named in names for n in named.values())), results={})
    for results, named in zip(parts, names, strict=True):
        for system, name in named.items():
            merged.describe.setdefault(name, results.describe.get(system, {}) | {"mlkd": results.mlkd})
            merged.results.setdefault(name, results.results[system])
    merged.comparisons = _comparisons(merged, parts, names, shared, num_resamples)
    return Merged(merged, len(set.union(*rows) - shared), [problem.what for problem in problems])


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Each folder without what all of them begin with."""
    resolved = [str(folder.resolve()) for folder in folders]
    common = os.path.commonpath(resolved)
    names = [os.path.relpath(folder, common) for folder in resolved]
    return names if len(set(names)) == len(names) and "." not in names else resolved


def _differences(found: Mapping[str, Results]) -> Iterator[Problem]:
    """One problem for each field of each task in which the files are not alike."""
    tasks = {name: _by_task(results) for name, results in found.items()}
    for task in dict.fromkeys(task for known in tasks.values() for task in known):
        without = [name for name, known in tasks.items() if task not in known]
        if without:
            has = [name for name in tasks if name not in without]
            yield Problem("E322", f"task '{task}' is in {', '.join(has)} and not in {', '.join(without)}")
            continue
        scored = {name: known[task] for name, known in tasks.items()}
        fields = list(_different_fields(task, scored))
        yield from fields or _different_rows(task, scored)


def _by_task(results: Results) -> dict[str, list[ScoreKey]]:
    found: dict[str, list[ScoreKey]] = {}
    for key in results.rows():
        found.setdefault(key.task, []).append(key)
    return found


def _different_fields(task: str, scored: Mapping[str, list[ScoreKey]]) -> Iterator[Problem]:
    for field in ("protocol", "data_sha256"):
        values = {name: sorted({str(getattr(key, field)) for key in keys}) for name, keys in scored.items()}
        if len({tuple(value) for value in values.values()}) > 1:
            shown = " and ".join(
                f"'{', '.join(v[:12] for v in value)}' in {name}"
                if field == "data_sha256"
                else f"'{', '.join(value)}' in {name}"
                for name, value in values.items()
            )
            remedy = "the same sentences of the same languages must be scored" if field == "data_sha256" else ""
            yield Problem("E322", f"task '{task}': {field} is {shown}", remedy=remedy)


def _different_rows(task: str, scored: Mapping[str, list[ScoreKey]]) -> Iterator[Problem]:
    everywhere = set.intersection(*(set(keys) for keys in scored.values()))
    for name, keys in scored.items():
        others = [key for key in keys if key not in everywhere]
        if others:
            shown = ", ".join(f"{key.language}/{key.metric} ({key.count} items)" for key in others[:_SHOWN])
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            yield Problem("E322", f"task '{task}': {shown}{more} in {name} alone or scored otherwise elsewhere")


def _only(results: Results, shared: set[ScoreKey]) -> Results:
    """`results` without the rows that are not `shared`."""
    found = {
        system: [
            replace(r, scores=scores) for r in tasks if (scores := [s for s in r.scores if score_key(r, s) in shared])
        ]
        for system, tasks in results.results.items()
    }
    return replace(results, systems=[s for s in results.systems if found.get(s)], results=found)


def _system_names(parts: Sequence[Results], folders: Sequence[str]) -> list[dict[str, str]]:
    """For each file its systems' names in the merged table: with the folder where one name means two encoders."""
    first_seen: dict[str, tuple[int, Any]] = {}
    ambiguous = set()
    for i, results in enumerate(parts):
        for system in results.systems:
            described = results.describe.get(system, {})
            identity = tuple(described.get(name) for name in _SETTINGS)
            before = first_seen.setdefault(system, (i, identity))
            same_encoder = identity[0] is not None and before[1] == identity
            if before[0] != i and not (same_encoder and _agree(parts[before[0]], results, system)):
                ambiguous.add(system)
    return [
        {system: f"{system} ({folder})" if system in ambiguous else system for system in results.systems}
        for results, folder in zip(parts, folders, strict=True)
    ]


def _agree(first: Results, second: Results, system: str) -> bool:
    """Whether `system` has the same numbers in both."""
    rows = second.rows()
    return all(values.get(system) == rows[key].get(system) for key, values in first.rows().items() if key in rows)


def _comparisons(
    merged: Results,
    parts: Sequence[Results],
    names: Sequence[Mapping[str, str]],
    shared: set[ScoreKey],
    num_resamples: int,
) -> list[Comparison]:
    """Tests between all systems whose item scores are there, and the others that the files already had."""
    rows = {(key.task, key.protocol, key.data_sha256, key.language, key.metric) for key in shared}
    found = compare_systems({name: merged.results[name] for name in merged.systems}, num_resamples)
    for results, named in zip(parts, names, strict=True):
        found += [
            replace(c, first=named[c.first], second=named[c.second])
            for c in results.comparisons
            if c.first in named and c.second in named
        ]
    kept: dict[tuple[Any, ...], Comparison] = {}
    for c in found:
        row = (c.task, c.protocol, c.data_sha256, c.language, c.metric)
        if row in rows:
            kept.setdefault((*row, frozenset((c.first, c.second))), c)
    return list(kept.values())
