"""Tatoeba: is a sentence's translation its nearest neighbour by cosine?"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlkd.models.encoder import Encoder
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.parallel import NearestTask, ParallelSet, hash_sets, hits, nearest_both_ways
from mlkd.tasks.scoring.item_scores import ItemScores, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items
from mlkd.tasks.tatoeba_languages import expand_sets


class TatoebaProtocol(enum.Enum):
    """What is reported.

    `laser`: accuracy of both directions and their mean; a hit on an identical text counts.
    `xtreme`: accuracy from the source language (en->xx); only the same row counts.
    `mteb`: F1 over rows as classes, weighted by support, to the source language (xx->en); only the same row counts.
    """

    laser = "laser"
    xtreme = "xtreme"
    mteb = "mteb"


@dataclass(kw_only=True, slots=True)
class TatoebaTask(NearestTask):
    """Cosine top-1 retrieval between the source language (English) and each other one.

    Args:
        languages: codes, and the names of published selections: `all` (the 112 languages of LASER's test sets) and
            `xtreme` (36 of them).
        protocol: whose numbers these are.

    Source:
        Artetxe & Schwenk 2019, "Massively Multilingual Sentence Embeddings", section 4.3.
    """

    name: str = "tatoeba"
    protocol: TatoebaProtocol = field(default=TatoebaProtocol.laser)

    def __post_init__(self) -> None:
        self.languages = expand_sets(self.languages)
        NearestTask.__post_init__(self)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[ParallelSet] = data
        sides = (text for s in sets for text in s.source), (text for s in sets for text in s.target)
        source, target = self.two_sides(encoder, teacher, *sides)
        item_scores: dict[str, ItemScores] = {}
        for pairs in sets:
            found = self._score_language(pairs, source, target)
            item_scores |= {f"{pairs.language}/{metric}": items for metric, items in found.items()}
        item_scores = with_means(item_scores)
        return TaskResult(
            task=self.name,
            protocol=self.named(self.protocol.value),
            main="f1" if self.protocol is TatoebaProtocol.mteb else "accuracy",
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=scores_from_items(item_scores),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
            item_scores=item_scores,
        )

    def _score_language(self, pairs: ParallelSet, source: TextVectors, target: TextVectors) -> dict[str, ItemScores]:
        to_source, from_source = nearest_both_ways(self.search, target.rows(pairs.target), source.rows(pairs.source))
        if self.protocol is TatoebaProtocol.mteb:
            return {"f1": MeanItemScores(row_f1(to_source))}
        if self.protocol is TatoebaProtocol.xtreme:
            return {"accuracy": MeanItemScores(np.asarray(from_source) == np.arange(len(from_source)))}
        target_to_source = np.asarray(hits(to_source, pairs.source), dtype=np.float64)
        source_to_target = np.asarray(hits(from_source, pairs.target), dtype=np.float64)
        return {
            f"xx->{self.source_language}": MeanItemScores(target_to_source),
            f"{self.source_language}->xx": MeanItemScores(source_to_target),
            "accuracy": MeanItemScores((target_to_source + source_to_target) / 2),
        }


def row_f1(predicted: list[int]) -> list[float]:
    """F1 of each row as a class that occurs once: 2 tp / (1 + predictions of the row). Their mean is the weighted F1.

    A resampled mean keeps the predictions that were counted in the whole set.

    >>> row_f1([0, 0])
    [0.6666666666666666, 0.0]
    """
    times_predicted = Counter(predicted)
    return [2 / (1 + times_predicted[row]) if row == wanted else 0.0 for wanted, row in enumerate(predicted)]
