"""Candidate pruning: pairs that can be among the top K of their query, kept while blocks of rounded similarities pass.

Every query has a threshold: a rounded similarity below it cannot belong to the top K, whatever the rounding did. The
threshold rises as better pairs come in. Similarities are compared as their bits, which order positive floats and cost a
fraction of comparing bf16; a query whose threshold is not above zero in the end is left to an exact search.

Shapes: Q queries, R x C one block, G groups of rows or columns, P pairs, K entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlkd.knn.similarity_precision import Arithmetic
from mlkd.knn.top_k import order_ties
from mlkd.knn.unit_vectors import UnitVectors, similarities

# More groups of a block above the threshold than this many per query, and the threshold is raised within the block.
_MANY_GROUPS = 2
_QUERIES_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Pairs:
    """(P,) each: query and item numbers, and the bits of the rounded similarity."""

    query: Tensor
    item: Tensor
    bits: Tensor


@dataclass(frozen=True, slots=True)
class TopK:
    """The proven top K of each query, as far as low precision proves them.

    Args:
        is_certain: (Q,) whether the query's K best are proven.
        similarity: (certain queries, K) float32, descending.
        item: (certain queries, K) int64, ascending among equals.
    """

    is_certain: Tensor
    similarity: Tensor
    item: Tensor


class Shortlist:
    """Candidates of Q queries, to be re-ranked by exact similarity.

    Args:
        bound_Q: (Q,) float64, how far a computed product can be from the exact one.
        k: K.
        arithmetic: of the blocks.
        num_padded: Q rounded up to whole blocks.
        max_per_query: pairs after which a query is given up.
    """

    def __init__(self, bound_Q: Tensor, k: int, arithmetic: Arithmetic, num_padded: int, max_per_query: int) -> None:
        self._bound = bound_Q
        self._k = k
        self._arithmetic = arithmetic
        self._max_per_query = max_per_query
        self._never = torch.iinfo(arithmetic.bits).max
        self.threshold = torch.ones(num_padded, dtype=arithmetic.bits, device=bound_Q.device)
        self._pairs: list[Pairs] = []
        self._num_new = 0
        self._num_kept = 0

    def add(self, block: Tensor, maxima: Tensor, along_rows: bool, first_query: int, first_item: int) -> None:
        """Keep the pairs that reach their query's threshold.

        Args:
            block: (R, C) bits of rounded similarities, contiguous.
            maxima: along rows (R, G), the largest of columns g, g + G, g + 2G, ...; else (G, C), likewise of rows.
            along_rows: whether the queries are the rows.
            first_query: number of the block's first query.
            first_item: number of the block's first item.
        """
        num_queries = block.shape[0] if along_rows else block.shape[1]
        queries = slice(first_query, first_query + num_queries)
        threshold = self.threshold[queries].unsqueeze(1 if along_rows else 0)
        above = _positions(maxima >= threshold) if maxima.is_cuda else _positions_on_cpu(maxima, threshold)
        if len(above) > _MANY_GROUPS * num_queries:
            above = self._raise_within(maxima, along_rows, queries)
        if len(above) == 0:
            return
        row, column = above // maxima.shape[1], above % maxima.shape[1]
        query, group = (row, column) if along_rows else (column, row)
        members, step = _members(block, maxima.shape[1 if along_rows else 0], along_rows)
        bits = members[row * block.shape[1] + column]
        threshold = self.threshold[query + first_query].unsqueeze(1)
        passes = _positions(bits >= threshold) if maxima.is_cuda else _positions_on_cpu(bits, threshold)
        which, member = passes // bits.shape[1], passes % bits.shape[1]
        item = group[which] + member * step + first_item
        self._pairs.append(Pairs(query[which] + first_query, item, bits.flatten()[passes]))
        self._num_new += len(passes)
        if self._num_new > self._num_kept + self._k * len(self._bound):
            self.tighten()

    def tighten(self) -> Pairs:
        """Raise thresholds to what the pairs so far prove, drop pairs below; those left, best first per query."""
        query, item, bits = (
            torch.cat([getattr(pairs, name) for pairs in self._pairs])
            if self._pairs
            else torch.empty(0, dtype=torch.int64, device=self.threshold.device)
            for name in ("query", "item", "bits")
        )
        order = ((query << 32) - bits).argsort()
        query, item, bits = query[order], item[order], bits[order]
        rank, _ = _ranks(query, len(self.threshold))
        kth = (rank == self._k - 1).nonzero().squeeze(1)
        self._raise_to(query[kth], bits[kth])
        kept = bits >= self.threshold[query]
        query, item, bits, rank = query[kept], item[kept], bits[kept], rank[kept]
        too_many = query[rank == self._max_per_query]
        if len(too_many) > 0:
            self.threshold[too_many] = self._never
            kept = self.threshold[query] != self._never
            query, item, bits = query[kept], item[kept], bits[kept]
        pairs = Pairs(query, item, bits)
        self._pairs, self._num_new, self._num_kept = [pairs], 0, len(query)
        return pairs

    def top_k(self, queries: UnitVectors, items: UnitVectors) -> TopK:
        """Compare the pairs left by exact similarity."""
        pairs = self.tighten()
        _, count = _ranks(pairs.query, len(self.threshold))
        count = count[: len(queries)]
        is_certain = (count >= self._k) & (self.threshold[: len(queries)] > 1)
        spans = torch.stack([count.cumsum(0) - count, count.cumsum(0)])
        certain = is_certain.nonzero().squeeze(1)
        similarity = torch.empty(len(certain), self._k, device=queries.device)
        item = torch.empty(len(certain), self._k, dtype=torch.int64, device=queries.device)
        for start in range(0, len(certain), _QUERIES_AT_ONCE):
            chunk = slice(start, start + _QUERIES_AT_ONCE)
            similarity[chunk], item[chunk] = self._top_k_of(
                certain[chunk], pairs, spans[:, certain[chunk]], queries, items
            )
        return TopK(is_certain, similarity, item)

    def _top_k_of(
        self, query_Q: Tensor, pairs: Pairs, spans_2Q: Tensor, queries: UnitVectors, items: UnitVectors
    ) -> tuple[Tensor, Tensor]:
        """The K best by rounded similarity first: beside their exact ones most of the others are out."""
        places_QK = spans_2Q[0, :, None] + torch.arange(self._k, device=query_Q.device)
        item_QK = pairs.item[places_QK]
        similarity_QK = similarities(queries, query_Q, items, item_QK)
        threshold_Q = self._as_bits(similarity_QK.amin(dim=1).double() - self._bound[query_Q])
        width = int((spans_2Q[1] - spans_2Q[0]).max()) - self._k
        places_QW = places_QK[:, -1:] + 1 + torch.arange(width, device=query_Q.device)
        inside_QW = places_QW < spans_2Q[1, :, None]
        places_QW = places_QW.where(inside_QW, 0)
        row, column = (inside_QW & (pairs.bits[places_QW] >= threshold_Q[:, None])).nonzero(as_tuple=True)
        more_item = pairs.item[places_QW[row, column]]
        more = similarities(queries, query_Q[row], items, more_item[:, None]).squeeze(1)
        rank, how_many = _ranks(row, len(query_Q))
        shape = (len(query_Q), self._k + int(how_many.max()))
        all_similarities = torch.full(shape, -torch.inf, device=more.device)
        all_items = torch.zeros(shape, dtype=torch.int64, device=more.device)
        all_similarities[:, : self._k], all_items[:, : self._k] = similarity_QK, item_QK
        all_similarities[row, self._k + rank], all_items[row, self._k + rank] = more, more_item
        similarity, item = order_ties(all_similarities, all_items)
        return similarity[:, : self._k], item[:, : self._k]

    def _raise_within(self, maxima: Tensor, along_rows: bool, queries: slice) -> Tensor:
        """Different groups have different members: the K-th largest maximum is reached by K of them."""
        by_query = maxima if along_rows else maxima.T
        numbers = torch.arange(queries.start, min(queries.stop, len(self._bound)), device=maxima.device)
        self._raise_to(numbers, _kth_largest(by_query[: len(numbers)].contiguous(), self._k))
        above = by_query >= self.threshold[queries].unsqueeze(1)
        hopeless = above.sum(dim=1) > max(by_query.shape[1] // 2, self._k)
        if bool(hopeless.any()):
            self.threshold[queries][hopeless] = self._never
            above &= ~hopeless.unsqueeze(1)
        return _positions(above if along_rows else above.T)

    def _raise_to(self, query_P: Tensor, kth_P: Tensor) -> None:
        """K pairs of the query are rounded to `kth` or better."""
        kth = kth_P.to(self._arithmetic.bits).view(self._arithmetic.stored).double()
        bound = self._bound[query_P]
        threshold = self._as_bits(kth * (1 - self._arithmetic.output_rounding) - 2 * bound)
        self.threshold[query_P] = torch.maximum(
            self.threshold[query_P], threshold.where(kth_P > 0, torch.ones_like(threshold))
        )

    def _as_bits(self, products: Tensor) -> Tensor:
        """Rounding is monotonic: a product of at least this much is rounded to at least these bits."""
        return products.to(self._arithmetic.stored).view(self._arithmetic.bits).clamp_(min=1)


def _ranks(query_P: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
    """Place of each pair within its query, pairs being sorted by query; and the number of pairs of each query."""
    count = torch.bincount(query_P, minlength=num_queries)
    first = count.cumsum(0) - count
    return torch.arange(len(query_P), device=query_P.device) - first[query_P], count


def _members(block: Tensor, num_groups: int, along_rows: bool) -> tuple[Tensor, int]:
    """A view of the block, one row for each place where a group begins: the group's members; and their distance."""
    rows, columns = block.shape
    size = (columns if along_rows else rows) // num_groups
    distance = num_groups if along_rows else num_groups * columns
    return block.as_strided((block.numel() - (size - 1) * distance, size), (1, distance)), num_groups


def _positions(mask: Tensor) -> Tensor:
    """Flat places that are set, ascending."""
    return mask.flatten().nonzero().squeeze(1)


def _positions_on_cpu(values: Tensor, threshold: Tensor) -> Tensor:
    """`_positions(values >= threshold)`, by numpy's vector instructions: four times as fast as torch's."""
    return torch.from_numpy(np.flatnonzero(values.numpy() >= threshold.numpy()))


def _kth_largest(values_QG: Tensor, k: int) -> Tensor:
    if values_QG.is_cuda:
        return values_QG.topk(k, dim=1).values[:, -1]
    # Sorting short rows of integers in numpy is ten times as fast as `topk` on a CPU.
    return torch.from_numpy(np.sort(values_QG.numpy(), axis=1)[:, -k].copy())
