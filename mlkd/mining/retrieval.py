"""From neighbours to sentence pairs: who is paired with whom, and from which score on a pair is kept.

Shapes: N source rows, M target rows, P candidate pairs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlkd.mining.margins import Margin, margin_scores
from mlkd.mining.neighbours import Neighbours


class Retrieval(enum.Enum):
    """Which best neighbours become pairs.

    `forward`: every source with its best target. `backward`: every target with its best source. `intersection`: pairs
    that both agree on. `max`: both lists together, best first, each sentence used once (what papers report).
    """

    forward = "forward"
    backward = "backward"
    intersection = "intersection"
    max = "max"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidate pairs, best first; equal scores in the order the retrieval found them.

    Args:
        source: (P,) int64 rows of the source side.
        target: (P,) int64 rows of the target side.
        score: (P,) float32 margin scores.
    """

    source: Tensor
    target: Tensor
    score: Tensor


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """A threshold and what the pairs from it on reach, as fractions of 1."""

    threshold: float
    f1: float
    precision: float
    recall: float


def retrieve(forward: Neighbours, backward: Neighbours, margin: Margin, retrieval: Retrieval) -> Candidates:
    """Candidate pairs from neighbours in both directions.

    Args:
        forward: of the N sources among the targets.
        backward: of the M targets among the sources.
        margin: how cosines are weighed.
        retrieval: which pairs are taken.

    Source:
        Artetxe & Schwenk 2019, section 3.2.
    """
    forward_target, forward_score = _best(forward, backward, margin)
    backward_source, backward_score = _best(backward, forward, margin)
    all_sources, all_targets = torch.arange(len(forward_target)), torch.arange(len(backward_source))
    if retrieval is Retrieval.forward:
        return _best_first(all_sources, forward_target, forward_score)
    if retrieval is Retrieval.backward:
        return _best_first(backward_source, all_targets, backward_score)
    if retrieval is Retrieval.intersection:
        mutual = backward_source[forward_target] == all_sources
        return _best_first(all_sources[mutual], forward_target[mutual], forward_score[mutual])
    both = _best_first(
        torch.cat([all_sources, backward_source]),
        torch.cat([forward_target, all_targets]),
        torch.cat([forward_score, backward_score]),
    )
    return _each_once(both)


def fit_threshold(score: Tensor, is_correct: Tensor, num_gold: int) -> ThresholdFit:
    """The cut of a ranking with the best F1; the first of several equal ones.

    Args:
        score: (P,) descending.
        is_correct: (P,) bool, whether the pair is in the gold set.
        num_gold: size of the gold set, at least 1.

    Returns:
        The threshold lies midway between the last pair kept and the next one, or on the last pair of all. Where no
        pair is correct, everything is 0 and the threshold is infinite: nothing is kept.

    >>> fit = fit_threshold(torch.tensor([4.0, 3.0, 2.0]), torch.tensor([True, False, False]), 2)
    >>> fit.threshold, fit.precision, fit.recall
    (3.5, 1.0, 0.5)
    """
    assert num_gold >= 1, "a threshold needs gold pairs"
    correct: NDArray[np.int64] = np.cumsum(is_correct.numpy().astype(np.int64))
    if len(correct) == 0 or correct[-1] == 0:
        return ThresholdFit(float("inf"), 0.0, 0.0, 0.0)
    extracted = np.arange(1, len(correct) + 1)
    # F1 = 2PR / (P + R) = 2 correct / (extracted + gold); argmax takes the first, as "at a strict improvement" does.
    f1 = 2 * correct / (extracted + num_gold)
    last = int(f1.argmax())
    following = min(last + 1, len(correct) - 1)
    threshold = (float(score[last]) + float(score[following])) / 2
    return ThresholdFit(
        threshold, float(f1[last]), float(correct[last] / extracted[last]), float(correct[last] / num_gold)
    )


def apply_threshold(score: Tensor, is_correct: Tensor, num_gold: int, threshold: float) -> ThresholdFit:
    """F1, precision and recall of the pairs with score >= threshold; arguments as in `fit_threshold`."""
    # In float64, as the threshold is: rounded to float32 it could leave out the pair it was fitted on.
    kept = score.double() >= threshold
    num_kept, num_correct = int(kept.sum()), int((kept & is_correct).sum())
    precision = num_correct / num_kept if num_kept else 0.0
    recall = num_correct / num_gold
    return ThresholdFit(threshold, 2 * num_correct / (num_kept + num_gold), precision, recall)


def _best(neighbours: Neighbours, other: Neighbours, margin: Margin) -> tuple[Tensor, Tensor]:
    """Each row's best neighbour and its score; the nearest of equal ones (argmax's own choice among them varies)."""
    score_NK = margin_scores(neighbours, other.similarity.mean(dim=1), margin)
    best_N1 = score_NK.sort(dim=1, descending=True, stable=True).indices[:, :1]
    return neighbours.index.gather(1, best_N1).squeeze(1), score_NK.gather(1, best_N1).squeeze(1)


def _best_first(source: Tensor, target: Tensor, score: Tensor) -> Candidates:
    order = score.sort(descending=True, stable=True).indices
    return Candidates(source[order], target[order], score[order])


def _each_once(candidates: Candidates) -> Candidates:
    """Greedy one-to-one: keep a pair if neither of its sentences was used by a better one. One pass, O(P)."""
    used_sources: set[int] = set()
    used_targets: set[int] = set()
    kept = []
    pairs = zip(candidates.source.tolist(), candidates.target.tolist(), strict=True)
    for position, (source, target) in enumerate(pairs):
        if source not in used_sources and target not in used_targets:
            used_sources.add(source)
            used_targets.add(target)
            kept.append(position)
    chosen = torch.tensor(kept, dtype=torch.int64)
    return Candidates(candidates.source[chosen], candidates.target[chosen], candidates.score[chosen])
