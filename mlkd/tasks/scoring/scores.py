"""Scores of one task for one encoder, by language and metric, with what makes them comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mlkd.tasks.scoring.item_scores import ItemScores


@dataclass(frozen=True, slots=True)
class Score:
    """One number as the field prints it (percent, or 100 x Spearman).

    Args:
        language: `de`, `en-de` or `mean`.
        metric: `accuracy`, `spearman`, `f1`, ...; with its language and task the key `task/language/metric`.
        value: on the metric's printed scale; None where undefined (a correlation of constant scores).
        count: items behind the number (sentence pairs, gold pairs).
    """

    language: str
    metric: str
    value: float | None
    count: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """All scores of one task for one encoder, with what makes them comparable.

    Args:
        task: the task's name, first part of every metric key.
        protocol: the named protocol and its parameters, e.g. `laser` or `fitted, k=4, ratio, max`.
        main: the metric whose language `mean` is the task's single number.
        higher_is_better: direction of `main`.
        data_sha256: hash of every text and gold label that was scored.
        scores: in display order; includes language `mean` for `main`.
        details: anything a report draws (similarity histograms, thresholds); JSON-able.
        item scores: by `language/metric`, what the score was computed from; not written.
        tables: rows that an evaluation writes as `<task>.<key>.tsv` beside its results (mined pairs); not in its JSON.
    """

    task: str
    protocol: str
    main: str
    higher_is_better: bool
    data_sha256: str
    scores: list[Score]
    details: dict[str, Any] = field(default_factory=dict)
    item_scores: dict[str, ItemScores] = field(default_factory=dict, repr=False, compare=False)
    tables: dict[str, list[tuple[str, ...]]] = field(default_factory=dict, repr=False, compare=False)

    def as_metrics(self) -> dict[str, float]:
        """`{"tatoeba/de/accuracy": 63.1, ...}`, undefined scores left out."""
        return {f"{self.task}/{s.language}/{s.metric}": s.value for s in self.scores if s.value is not None}

    def as_json(self) -> dict[str, Any]:
        """Every field that is written."""
        written = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("item_scores", "tables")}
        return written | {"scores": [asdict(score) for score in self.scores]}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> TaskResult:
        """What `as_json` gave, without item scores and tables."""
        return cls(**{**entry, "scores": [Score(**score) for score in entry["scores"]]})


def scores_from_items(item_scores: Mapping[str, ItemScores]) -> list[Score]:
    """One score for the item scores under each key `language/metric`, in their order."""
    found = [(key.split("/", 1), items) for key, items in item_scores.items()]
    return [Score(language, metric, items.value(), items.count) for (language, metric), items in found]
