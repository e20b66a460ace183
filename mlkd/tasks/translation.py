"""Translation accuracy, as sentence-transformers' TranslationEvaluator measures it, in percent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlkd.mining.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import Score, TaskResult, mean_score
from mlkd.tasks.intervals import wilson_interval
from mlkd.tasks.parallel import ParallelSet, ParallelTask, hash_sets, hits, nearest_both_ways, percent
from mlkd.tasks.vectors import TextVectors


@dataclass(kw_only=True, slots=True)
class TranslationTask(ParallelTask):
    """For each English sentence, is its translation the nearest of all translations (`src2trg`), and the reverse.

    Args:
        search: how neighbours are searched.

    Source:
        sentence-transformers, `TranslationEvaluator`: a hit on an identical text counts.
    """

    name: str = "translation"
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[ParallelSet] = data
        vectors = TextVectors(encoder, self.texts(sets))
        scores = []
        for pairs in sets:
            forward, backward = nearest_both_ways(self.search, vectors.rows(pairs.english), vectors.rows(pairs.foreign))
            src2trg, trg2src = percent(hits(forward, pairs.foreign)), percent(hits(backward, pairs.english))
            values = {"src2trg": src2trg, "trg2src": trg2src, "accuracy": (src2trg + trg2src) / 2}
            scores += [Score(pairs.language, metric, value, len(pairs.english)) for metric, value in values.items()]
        intervals = {
            f"{score.language}/{score.metric}": wilson_interval(score.value, score.count)
            for score in scores
            if score.value is not None
        }
        return TaskResult(
            task=self.name,
            protocol="cosine top-1, identical texts count",
            main="accuracy",
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=scores + [mean_score(scores, metric) for metric in ("src2trg", "trg2src", "accuracy")],
            details={"intervals": intervals, "num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
        )
