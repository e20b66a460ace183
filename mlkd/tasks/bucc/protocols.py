"""The two protocols that published BUCC numbers follow: `laser` and `st`.

Shapes: N source lines, M target lines, D dimensions, P candidate pairs.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.knn.retrieval import Candidates, Retrieval, retrieve

# The sentence-transformers script stops at candidates that are no nearer than their neighbourhood.
_ST_MIN_RATIO = 1.0


class BuccProtocol(enum.Enum):
    """`laser`: equal texts are one text, and ambiguous texts cannot be scored. `st`: every line stands for itself."""

    laser = "laser"
    st = "st"


@dataclass(frozen=True, slots=True)
class MiningSide:
    """One corpus: line n has the id `ids[n]` and the sentence `texts[n]`."""

    ids: list[str]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class MiningSplit:
    """Two corpora and the pairs (source id, target id) known to be translations."""

    source: MiningSide
    target: MiningSide
    gold: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How pairs are mined: neighbours per sentence (k), margin, retrieval and protocol, and what searches."""

    num_neighbours: int
    margin: Margin
    retrieval: Retrieval
    protocol: BuccProtocol
    search: NeighbourSearch


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mined pairs that can be scored, best first.

    Args:
        pairs: (source id, target id).
        score: (P,) margin scores, descending.
        is_correct: (P,) bool, whether the pair is gold.
        num_gold: size of the gold set, found or not.
    """

    pairs: list[tuple[str, str]]
    score: Tensor
    is_correct: Tensor
    num_gold: int


def rank_pairs(split: MiningSplit, source_ND: Tensor, target_MD: Tensor, settings: MiningSettings) -> Ranking:
    """Mine `split` and mark what is right.

    Args:
        split: the corpora and the gold set.
        source_ND: one vector per source line, of any length.
        target_MD: one vector per target line.
        settings: how to mine.

    Source:
        https://github.com/facebookresearch/LASER, tasks/bucc and source/mine_bitexts.py (`laser`);
        sentence-transformers, examples/applications/parallel-sentence-mining/bucc2018.py (`st`).
    """
    if settings.protocol is BuccProtocol.laser:
        source_lines, target_lines = unify(split.source.texts), unify(split.target.texts)
    else:
        source_lines, target_lines = list(range(len(split.source.texts))), list(range(len(split.target.texts)))
    forward, backward = settings.search.both_ways(
        source_ND[source_lines], target_MD[target_lines], settings.num_neighbours
    )
    candidates = retrieve(forward, backward, settings.margin, settings.retrieval)
    if settings.protocol is BuccProtocol.laser:
        source_ids = [split.source.ids[line] for line in source_lines]
        target_ids = [split.target.ids[line] for line in target_lines]
        source_known = _occurs_once(split.source.texts, source_lines)
        target_known = _occurs_once(split.target.texts, target_lines)
        kept = source_known[candidates.source] & target_known[candidates.target]
    else:
        source_ids, target_ids = split.source.ids, split.target.ids
        kept = candidates.score >= _ST_MIN_RATIO
    return _mark(candidates, kept, source_ids, target_ids, split.gold)


def unify(texts: Sequence[str]) -> list[int]:
    """One line per distinct text, in order of first occurrence; of several equal lines the last one stands for all.

    >>> unify(["a", "b", "a"])
    [2, 1]
    """
    return list({text: line for line, text in enumerate(texts)}.values())


def _occurs_once(texts: Sequence[str], lines: Sequence[int]) -> Tensor:
    counts = Counter(texts)
    return torch.tensor([counts[texts[line]] == 1 for line in lines])


def _mark(
    candidates: Candidates,
    kept: Tensor,
    source_ids: Sequence[str],
    target_ids: Sequence[str],
    gold: Sequence[tuple[str, str]],
) -> Ranking:
    sources, targets = candidates.source[kept].tolist(), candidates.target[kept].tolist()
    pairs = [(source_ids[source], target_ids[target]) for source, target in zip(sources, targets, strict=True)]
    known = set(gold)
    is_correct = torch.tensor([pair in known for pair in pairs], dtype=torch.bool)
    return Ranking(pairs, candidates.score[kept], is_correct, len(known))
