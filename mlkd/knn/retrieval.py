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

from mlkd.knn.margins import Margin, margin_scores
from mlkd.knn.neighbours import Neighbours

_MAX_ROUNDS = 64


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
    return _greedy_one_to_one(both)


def _best(neighbours: Neighbours, other: Neighbours, margin: Margin) -> tuple[Tensor, Tensor]:
    """Each row's best neighbour and its score; the nearest of equal ones (argmax's own choice among them varies)."""
    score_NK = margin_scores(neighbours, other.similarity.mean(dim=1), margin)
    best_N1 = score_NK.sort(dim=1, descending=True, stable=True).indices[:, :1]
    return neighbours.index.gather(1, best_N1).squeeze(1), score_NK.gather(1, best_N1).squeeze(1)


def _best_first(source: Tensor, target: Tensor, score: Tensor) -> Candidates:
    order = score.sort(descending=True, stable=True).indices
    return Candidates(source[order], target[order], score[order])


def _greedy_one_to_one(candidates: Candidates) -> Candidates:
    """Greedy one-to-one: keep a pair if neither of its sentences was used by a better one.

    In rounds: a pair that comes first for both its sentences is kept by the greedy choice too, whatever else there is;
    pairs that share a sentence with it are out, and the next round looks at the rest. Few rounds do, except where
    candidates form one long chain of falling scores: what is left after `_MAX_ROUNDS` is gone through one by one.
    """
    source, target = candidates.source.numpy(), candidates.target.numpy()
    left = np.arange(len(source))
    is_kept = np.zeros(len(source), dtype=bool)
    is_used = np.zeros(source.max(initial=-1) + 1, dtype=bool), np.zeros(target.max(initial=-1) + 1, dtype=bool)
    for _ in range(_MAX_ROUNDS):
        first = left[_comes_first(source[left], len(is_used[0])) & _comes_first(target[left], len(is_used[1]))]
        is_kept[first] = is_used[0][source[first]] = is_used[1][target[first]] = True
        left = left[~(is_used[0][source[left]] | is_used[1][target[left]])]
        if len(left) == 0:
            break
    for pair in left:
        if not (is_used[0][source[pair]] or is_used[1][target[pair]]):
            is_kept[pair] = is_used[0][source[pair]] = is_used[1][target[pair]] = True
    chosen = torch.from_numpy(is_kept.nonzero()[0])
    return Candidates(candidates.source[chosen], candidates.target[chosen], candidates.score[chosen])


def _comes_first(numbers_P: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Whether each entry is the first with its number."""
    places = np.arange(len(numbers_P))
    first = np.empty(size, dtype=np.int64)
    # Of several assignments to one place numpy keeps the last: here the earliest.
    first[numbers_P[::-1]] = places[::-1]
    comes_first: NDArray[np.bool_] = first[numbers_P] == places
    return comes_first
