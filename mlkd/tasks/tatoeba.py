"""Tatoeba: is a sentence's translation its nearest neighbour by cosine?"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mlkd.mining.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import Score, TaskResult, mean_score
from mlkd.tasks.intervals import wilson_interval
from mlkd.tasks.parallel import ParallelSet, ParallelTask, hash_sets, hits, nearest_both_ways, percent
from mlkd.tasks.vectors import TextVectors


class TatoebaProtocol(enum.Enum):
    """What is reported.

    `laser`: accuracy of both directions and their mean; a hit on an identical text counts.
    `xtreme`: accuracy en->xx; only the same row counts.
    `mteb`: F1 over rows as classes, weighted by support, xx->en; only the same row counts.
    """

    laser = "laser"
    xtreme = "xtreme"
    mteb = "mteb"


@dataclass(kw_only=True, slots=True)
class TatoebaTask(ParallelTask):
    """Cosine top-1 retrieval between English and each language.

    Args:
        protocol: whose numbers these are.
        search: how neighbours are searched.

    Source:
        Artetxe & Schwenk 2019, "Massively Multilingual Sentence Embeddings", section 4.3.
    """

    name: str = "tatoeba"
    protocol: TatoebaProtocol = field(default=TatoebaProtocol.laser)
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[ParallelSet] = data
        vectors = TextVectors(encoder, self.texts(sets))
        main = "f1" if self.protocol is TatoebaProtocol.mteb else "accuracy"
        scores = [score for pairs in sets for score in self._score_language(pairs, vectors)]
        metrics = dict.fromkeys(score.metric for score in scores)
        means = [mean_score(scores, metric) for metric in metrics]
        intervals = {
            f"{score.language}/{score.metric}": wilson_interval(score.value, score.count)
            for score in scores
            if score.value is not None and score.metric in ("xx->en", "en->xx", "accuracy")
        }
        return TaskResult(
            task=self.name,
            protocol=self.protocol.value,
            main=main,
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=scores + means,
            details={"intervals": intervals, "num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
        )

    def _score_language(self, pairs: ParallelSet, vectors: TextVectors) -> list[Score]:
        to_english, from_english = nearest_both_ways(
            self.search, vectors.rows(pairs.foreign), vectors.rows(pairs.english)
        )
        count = len(pairs.english)
        if self.protocol is TatoebaProtocol.mteb:
            return [Score(pairs.language, "f1", 100 * weighted_f1(to_english), count)]
        if self.protocol is TatoebaProtocol.xtreme:
            same_row = [row == wanted for wanted, row in enumerate(from_english)]
            return [Score(pairs.language, "accuracy", percent(same_row), count)]
        foreign_to_english = percent(hits(to_english, pairs.english))
        english_to_foreign = percent(hits(from_english, pairs.foreign))
        return [
            Score(pairs.language, "xx->en", foreign_to_english, count),
            Score(pairs.language, "en->xx", english_to_foreign, count),
            Score(pairs.language, "accuracy", (foreign_to_english + english_to_foreign) / 2, count),
        ]


def weighted_f1(predicted: list[int]) -> float:
    """Weighted F1 where row n is its own class n and occurs once: F1 of class n is 2 tp / (1 + predictions of n).

    >>> weighted_f1([0, 0])
    0.3333333333333333
    """
    times_predicted = Counter(predicted)
    total = sum(2 / (1 + times_predicted[row]) for wanted, row in enumerate(predicted) if row == wanted)
    return total / len(predicted)
