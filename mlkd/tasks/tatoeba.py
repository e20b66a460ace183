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
from mlkd.tasks.scoring.item_scores import MeanSample, Sample
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, sample_scores
from mlkd.tasks.tatoeba_languages import expand_sets


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
class TatoebaTask(NearestTask):
    """Cosine top-1 retrieval between English and each language.

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
        sides = (text for s in sets for text in s.english), (text for s in sets for text in s.foreign)
        english, foreign = self.two_sides(encoder, teacher, *sides)
        samples: dict[str, Sample] = {}
        for pairs in sets:
            found = self._score_language(pairs, english, foreign)
            samples |= {f"{pairs.language}/{metric}": sample for metric, sample in found.items()}
        samples = with_means(samples)
        return TaskResult(
            task=self.name,
            protocol=self.named(self.protocol.value),
            main="f1" if self.protocol is TatoebaProtocol.mteb else "accuracy",
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=sample_scores(samples),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
            samples=samples,
        )

    def _score_language(self, pairs: ParallelSet, english: TextVectors, foreign: TextVectors) -> dict[str, Sample]:
        to_english, from_english = nearest_both_ways(
            self.search, foreign.rows(pairs.foreign), english.rows(pairs.english)
        )
        if self.protocol is TatoebaProtocol.mteb:
            return {"f1": MeanSample(row_f1(to_english))}
        if self.protocol is TatoebaProtocol.xtreme:
            return {"accuracy": MeanSample(np.asarray(from_english) == np.arange(len(from_english)))}
        foreign_to_english = np.asarray(hits(to_english, pairs.english), dtype=np.float64)
        english_to_foreign = np.asarray(hits(from_english, pairs.foreign), dtype=np.float64)
        return {
            "xx->en": MeanSample(foreign_to_english),
            "en->xx": MeanSample(english_to_foreign),
            "accuracy": MeanSample((foreign_to_english + english_to_foreign) / 2),
        }


def row_f1(predicted: list[int]) -> list[float]:
    """F1 of each row as a class that occurs once: 2 tp / (1 + predictions of the row). Their mean is the weighted F1.

    A resampled mean keeps the predictions that were counted in the whole set.

    >>> row_f1([0, 0])
    [0.6666666666666666, 0.0]
    """
    times_predicted = Counter(predicted)
    return [2 / (1 + times_predicted[row]) if row == wanted else 0.0 for wanted, row in enumerate(predicted)]
