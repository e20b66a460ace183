"""Neighbours among distinct rows as neighbours among all rows, repetitions included.

Shapes: N rows of a corpus, U distinct ones, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.knn.top_k import order_ties

_ROWS_AT_ONCE = 2**14


def repeat_queries(found: tuple[Tensor, Tensor], row_of_N: Tensor | None) -> tuple[Tensor, Tensor]:
    """(U, K) similarities and indices as (N, K): equal rows have equal neighbours."""
    return found if row_of_N is None else (found[0][row_of_N], found[1][row_of_N])


def repeat_items(found: tuple[Tensor, Tensor], row_of_N: Tensor | None, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Neighbours among the U distinct rows of a corpus as neighbours among its N rows.

    The K best of all rows are repetitions of the K best distinct ones: whatever repeats another row has K better ones
    before it. And no more than the first K repetitions of one row can be among them.

    Args:
        found: similarity and index among the distinct rows, min(K, U) of them, in order.
        row_of_N: (N,) number of each row among the distinct ones, which are in order of first occurrence; None where
            every row is distinct.
        num_neighbours: K.

    Returns:
        similarity and index (.., min(K, N)), equal similarities in ascending order of index.

    >>> repeat_items((torch.tensor([[0.5, 0.5]]), torch.tensor([[0, 1]])), torch.tensor([0, 1, 0]), 3)
    (tensor([[0.5000, 0.5000, 0.5000]]), tensor([[0, 1, 2]]))
    """
    if row_of_N is None:
        return found
    similarity, index = found
    count = row_of_N.bincount()
    members, first = row_of_N.argsort(stable=True), count.cumsum(0) - count
    k = min(num_neighbours, len(row_of_N))
    nth = torch.arange(min(k, int(count.max())), device=index.device)
    parts = []
    for start in range(0, len(index), _ROWS_AT_ONCE):
        near = index[start : start + _ROWS_AT_ONCE, :, None]
        exists = nth < count[near]
        rows = members[(first[near] + nth).where(exists, 0)]
        values = similarity[start : start + _ROWS_AT_ONCE, :, None].where(exists, -torch.inf)
        ordered = order_ties(values.flatten(1), rows.flatten(1))
        parts.append((ordered[0][:, :k].contiguous(), ordered[1][:, :k].contiguous()))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
