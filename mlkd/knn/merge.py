"""Sharded search: corpora searched part by part, with the neighbours one search over everything finds, to the last bit.

Shapes: N source rows, M target rows, D dimensions, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlkd.knn.neighbours import Neighbours, NeighbourSearch
from mlkd.knn.top_k import order_ties


def merge(parts: Sequence[Neighbours], num_neighbours: int) -> Neighbours:
    """The best K of several searches of the same rows in disjoint parts of the other side.

    A similarity is the same number wherever it is computed, and the order (similarity descending, then index
    ascending) holds across parts: the result is that of a search over all parts at once.

    Args:
        parts: at least one; (N, any) each, `index` counting over the whole other side, -1 where a place is empty.
        num_neighbours: K; fewer come back where all parts together hold fewer.

    >>> near = Neighbours(torch.tensor([[0.9, 0.1]]), torch.tensor([[7, 2]]))
    >>> merge([near, Neighbours(torch.tensor([[0.9]]), torch.tensor([[3]]))], 2).index
    tensor([[3, 7]])
    """
    similarity = torch.cat([part.similarity for part in parts], dim=1)
    index = torch.cat([part.index for part in parts], dim=1)
    similarity, index = order_ties(similarity, index)
    return Neighbours(similarity[:, :num_neighbours].contiguous(), index[:, :num_neighbours].contiguous())


class ShardedSearch:
    """Sharded search: neighbours of both sides, gathered from searches of one source shard in one target shard each.

    Every pair of shards is added once, in any order. Beyond the two shards of one `add`, memory holds K neighbours
    a row: 12 K bytes for each of the N + M rows.

    Args:
        search: what searches; an approximate backend gives approximate results.
        num_source: N, over all shards.
        num_target: M, over all shards.
        num_neighbours: K, at least 1.

    >>> from mlkd.knn.neighbours import NeighbourSearch
    >>> gathered = ShardedSearch(NeighbourSearch(device="cpu"), 1, 2, 1)
    >>> gathered.add(0, torch.tensor([[1.0, 0.0]]), 0, torch.tensor([[0.0, 1.0]]))
    >>> gathered.add(0, torch.tensor([[1.0, 0.0]]), 1, torch.tensor([[1.0, 0.0]]))
    >>> forward, backward = gathered.result()
    >>> forward.index.tolist(), backward.index.tolist()
    ([[1]], [[0], [0]])
    """

    def __init__(self, search: NeighbourSearch, num_source: int, num_target: int, num_neighbours: int) -> None:
        self._search = search
        self._num_neighbours = num_neighbours
        self._forward = _empty(num_source, min(num_neighbours, num_target))
        self._backward = _empty(num_target, min(num_neighbours, num_source))
        self._num_pairs = 0

    def add(self, first_source: int, source_RD: Tensor, first_target: int, target_CD: Tensor) -> None:
        """Search source rows [first_source, first_source + R) among target rows [first_target, first_target + C)."""
        forward, backward = self._search.both_ways(source_RD, target_CD, self._num_neighbours)
        _merge_into(self._forward, first_source, forward, first_target)
        _merge_into(self._backward, first_target, backward, first_source)
        self._num_pairs += len(source_RD) * len(target_CD)

    def result(self) -> tuple[Neighbours, Neighbours]:
        """As of `NeighbourSearch.both_ways` over all shards: (N, min(K, M)) and (M, min(K, N))."""
        expected = len(self._forward.index) * len(self._backward.index)
        assert self._num_pairs == expected, f"{self._num_pairs} pairs of rows were added, {expected} there are"
        return self._forward, self._backward


def _merge_into(whole: Neighbours, first_row: int, found: Neighbours, first_index: int) -> None:
    rows = slice(first_row, first_row + len(found.index))
    before = Neighbours(whole.similarity[rows], whole.index[rows])
    merged = merge([before, Neighbours(found.similarity, found.index + first_index)], whole.index.shape[1])
    whole.similarity[rows], whole.index[rows] = merged.similarity, merged.index


def _empty(num_rows: int, k: int) -> Neighbours:
    return Neighbours(torch.full((num_rows, k), -torch.inf), torch.full((num_rows, k), -1, dtype=torch.int64))
