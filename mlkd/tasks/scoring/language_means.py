"""Means of a metric over languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlkd.tasks.scoring.item_scores import ItemScores, MacroAverage
from mlkd.tasks.scoring.scores import Score


def mean_score(scores: Sequence[Score], metric: str) -> Score:
    """The mean of `metric` over its languages; undefined where one of them is, since a mean of fewer is another."""
    values = [score.value for score in scores if score.metric == metric]
    defined = [value for value in values if value is not None]
    value = sum(defined) / len(defined) if defined and len(defined) == len(values) else None
    return Score("mean", metric, value, sum(score.count for score in scores if score.metric == metric))


def with_means(item_scores: Mapping[str, ItemScores]) -> dict[str, ItemScores]:
    """`item_scores` by `language/metric`, followed by `mean/<metric>` of each metric."""
    parts: dict[str, list[ItemScores]] = {}
    for key, items in item_scores.items():
        parts.setdefault(key.split("/", 1)[1], []).append(items)
    return {**item_scores, **{f"mean/{metric}": MacroAverage(found) for metric, found in parts.items()}}
