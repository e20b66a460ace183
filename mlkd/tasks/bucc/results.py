"""What a ranking of mined pairs gives: which pairs are kept, their F1 sentence by sentence, a table, histograms.

Shapes: P ranked pairs, N source lines.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from mlkd.tasks.bucc.protocols import MiningSplit, Ranking
from mlkd.tasks.bucc.threshold import ThresholdFit
from mlkd.tasks.scoring.item_scores import F1ItemScores

TABLE_HEADER = ("score", "source_id", "target_id", "source", "target", "is_gold", "is_kept")
_NUM_HISTOGRAM_BINS = 40


def kept_from(ranking: Ranking, threshold: float) -> Tensor:
    """Pairs with score >= threshold, (P,) bool."""
    # In float64, as the threshold is: rounded to float32 it could leave out the pair it was fitted on.
    return ranking.score.double() >= threshold


def kept_by_rank(ranking: Ranking, fit: ThresholdFit) -> Tensor:
    """The first pairs of the ranking, as many as `fit` counts, (P,) bool: of pairs with equal scores perhaps a part.

    The best cut always ends with a right pair, so the number of right pairs tells where it is.
    """
    num_correct = round(fit.recall * ranking.num_gold)
    kept = torch.zeros(len(ranking.score), dtype=torch.bool)
    if num_correct > 0:
        last = int(ranking.is_correct.nonzero().flatten()[num_correct - 1])
        kept[: last + 1] = True
    return kept


def f1_item_scores(split: MiningSplit, ranking: Ranking, kept: Tensor) -> dict[str, F1ItemScores]:
    """F1, precision and recall of the kept pairs over the source sentences."""
    chosen = [pair for pair, is_kept in zip(ranking.pairs, kept.tolist(), strict=True) if is_kept]
    right = [pair for pair, good in zip(ranking.pairs, (kept & ranking.is_correct).tolist(), strict=True) if good]
    correct_N, extracted_N, gold_N = (
        [counts[source] for source in split.source.ids]
        for counts in (Counter(source for source, _ in pairs) for pairs in (right, chosen, set(split.gold)))
    )
    # F1 = 2 correct / (extracted + gold); precision and recall are that with the same count twice.
    return {
        "f1": F1ItemScores(correct_N, extracted_N, gold_N),
        "precision": F1ItemScores(correct_N, extracted_N, extracted_N),
        "recall": F1ItemScores(correct_N, gold_N, gold_N),
    }


def candidate_table(split: MiningSplit, ranking: Ranking, kept: Tensor) -> list[tuple[str, ...]]:
    """All ranked pairs, best first, under `TABLE_HEADER`; the score has the nine digits that make it exact."""
    sources = dict(zip(split.source.ids, split.source.texts, strict=True))
    targets = dict(zip(split.target.ids, split.target.texts, strict=True))
    columns = (ranking.score.tolist(), ranking.pairs, ranking.is_correct.tolist(), kept.tolist())
    table: list[tuple[str, ...]] = [TABLE_HEADER]
    for score, (source, target), is_gold, is_kept in zip(*columns, strict=True):
        texts = (sources[source], targets[target])
        table.append((f"{score:.9g}", source, target, *texts, str(int(is_gold)), str(int(is_kept))))
    return table


def describe_ranking(ranking: Ranking, threshold: float, oracle_threshold: float) -> dict[str, Any]:
    """Thresholds (None where nothing is kept) and histograms of the scores of right and wrong pairs."""
    described: dict[str, Any] = {
        "threshold": _finite(threshold),
        "oracle_threshold": _finite(oracle_threshold),
        "edges": [],
        "true": [],
        "false": [],
    }
    if len(ranking.score) == 0:
        return described
    low, high = float(ranking.score.min()), float(ranking.score.max())
    edges = torch.linspace(low, high if high > low else low + 1, _NUM_HISTOGRAM_BINS + 1)
    right, wrong = (
        torch.histogram(ranking.score[chosen], edges).hist.int().tolist()
        for chosen in (ranking.is_correct, ~ranking.is_correct)
    )
    return {**described, "edges": edges.tolist(), "true": right, "false": wrong}


def _finite(threshold: float) -> float | None:
    return threshold if threshold != float("inf") else None
