"""Translation accuracy, as sentence-transformers' TranslationEvaluator measures it, in percent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlkd.models.encoder import Encoder
from mlkd.tasks.parallel import NearestTask, ParallelSet, hash_sets, hits, nearest_both_ways
from mlkd.tasks.scoring.item_scores import ItemScores, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items


@dataclass(kw_only=True, slots=True)
class TranslationTask(NearestTask):
    """For each source sentence, is its translation the nearest of all translations (`src2trg`), and the reverse.

    Source:
        sentence-transformers, `TranslationEvaluator`: a hit on an identical text counts.
    """

    name: str = "translation"

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[ParallelSet] = data
        sides = (text for s in sets for text in s.source), (text for s in sets for text in s.target)
        source, target = self.two_sides(encoder, teacher, *sides)
        item_scores: dict[str, ItemScores] = {}
        for pairs in sets:
            forward, backward = nearest_both_ways(self.search, source.rows(pairs.source), target.rows(pairs.target))
            src2trg = np.asarray(hits(forward, pairs.target), dtype=np.float64)
            trg2src = np.asarray(hits(backward, pairs.source), dtype=np.float64)
            item_scores[f"{pairs.language}/src2trg"] = MeanItemScores(src2trg)
            item_scores[f"{pairs.language}/trg2src"] = MeanItemScores(trg2src)
            item_scores[f"{pairs.language}/accuracy"] = MeanItemScores((src2trg + trg2src) / 2)
        item_scores = with_means(item_scores)
        return TaskResult(
            task=self.name,
            protocol=self.named("cosine top-1, identical texts count"),
            main="accuracy",
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=scores_from_items(item_scores),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
            item_scores=item_scores,
        )
