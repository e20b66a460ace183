"""Exact K nearest rows in both directions: one pass over blocks in low precision, proven exact or searched again.

Shapes: N sources, M targets (distinct rows of length 1), D dimensions, K neighbours, R x C one block, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mlkd.knn.shortlist import Shortlist, TopK
from mlkd.knn.similarity_precision import FP32, Arithmetic, error_bound, matmul_precision
from mlkd.knn.top_k import StreamingTopK
from mlkd.knn.unit_vectors import UnitVectors, as_similarity

# Stored rows that stay in memory, in bytes; more are converted again for every stripe of so many tiles.
_STORED_BYTES = 2**28
_STRIPE = 8
# Up to this many similarities are computed exactly at once.
_MAX_EXACT = 2**18


SimilarityAndIndex = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class TileSizes:
    """Sizes of a pass: `rows` x `columns` similarities at a time, maxima of `row_group` rows and `column_group` columns
    of them."""

    rows: int
    columns: int
    row_group: int
    column_group: int

    @classmethod
    def of(cls, block_size: int, num_rows: int, num_columns: int, k: int) -> TileSizes:
        """The largest tiles of `block_size` similarities, columns to rows about two to one where both are many."""
        rows = min(2 ** max(0, (block_size.bit_length() - 2) // 2), _power_of_two(num_rows))
        columns = max(1, min(2 ** ((block_size // rows).bit_length() - 1), _power_of_two(num_columns)))
        return cls(rows, columns, _group(rows, k, 16), _group(columns, k, 32))


def search_both(
    source: UnitVectors,
    target: UnitVectors,
    num_neighbours: int,
    arithmetic: Arithmetic,
    block_size: int,
    *,
    one_way: bool,
) -> tuple[SimilarityAndIndex, SimilarityAndIndex | None]:
    """The K best of every row of both sides.

    Returns:
        (N, min(K, M)) float32 similarities and int64 rows of `target`, and (M, min(K, N)) of `source`, or None if
        `one_way`.
    """
    tiles = TileSizes.of(block_size, len(source), len(target), num_neighbours)
    is_too_wide = num_neighbours > tiles.columns or (num_neighbours > tiles.rows and not one_way)
    if len(source) * len(target) <= _MAX_EXACT or is_too_wide:
        forward = exact_top_k(source, target, num_neighbours)
        return forward, None if one_way else exact_top_k(target, source, num_neighbours)
    with matmul_precision(arithmetic):
        best, backward = _one_pass(source, target, num_neighbours, arithmetic, tiles, one_way=one_way)
    return (
        _search_uncertain_again(best, source, target, arithmetic, block_size),
        None if backward is None else _search_uncertain_again(backward, target, source, arithmetic, block_size),
    )


def exact_top_k(queries: UnitVectors, items: UnitVectors, num_neighbours: int, size: int = 1024) -> SimilarityAndIndex:
    """By float64 products, which are exact, and slow."""
    best = StreamingTopK(len(queries), min(num_neighbours, len(items)), queries.device)
    with torch.no_grad():
        for start in range(0, len(queries), size):
            rows = slice(start, min(start + size, len(queries)))
            query_QD = queries.on_grid(rows)
            for first_item in range(0, len(items), size):
                item_CD = items.on_grid(slice(first_item, min(first_item + size, len(items))))
                best.add(rows, first_item, as_similarity(query_QD @ item_CD.T))
    return best.similarity, best.index


def _one_pass(
    source: UnitVectors, target: UnitVectors, k: int, arithmetic: Arithmetic, tiles: TileSizes, *, one_way: bool
) -> tuple[TopK, TopK | None]:
    bound_N = error_bound(arithmetic, source.residual, float(target.residual.max()), source.dim)
    bound_M = error_bound(arithmetic, target.residual, float(source.residual.max()), source.dim)
    targets = _StoredBlocks(target, tiles.columns)
    backward = None if one_way else _shortlist(bound_M, min(k, len(source)), arithmetic, tiles.columns)
    found = []
    product = torch.empty(tiles.rows, tiles.columns, dtype=arithmetic.stored, device=source.device)
    block = product.view(arithmetic.bits)
    for first in range(0, len(source), _STRIPE * tiles.rows):
        stripe = slice(first, min(first + _STRIPE * tiles.rows, len(source)))
        forward = _shortlist(bound_N[stripe], min(k, len(target)), arithmetic, tiles.rows)
        source_SD = source.as_stored(stripe, len(forward.threshold))
        for column, target_CD in targets:
            for row in range(0, len(source_SD), tiles.rows):
                torch.mm(source_SD[row : row + tiles.rows], target_CD.T, out=product)
                by_row = block.view(tiles.rows, tiles.column_group, -1).amax(dim=1)
                forward.add(block, by_row, True, row, column)
                if backward is not None:
                    by_column = block.view(tiles.row_group, -1, tiles.columns).amax(dim=0)
                    backward.add(block, by_column, False, column, first + row)
        found.append(forward.top_k(source.subset(stripe), target))
    return _joined(found), None if backward is None else backward.top_k(target, source)


class _StoredBlocks:
    """Blocks of targets as stored; all of them stay in memory where they fit."""

    def __init__(self, rows: UnitVectors, size: int) -> None:
        self._rows, self._size = rows, size
        self._num_padded = -(-len(rows) // size) * size
        self._all: Tensor | None = None
        if self._num_padded * rows.dim * torch.finfo(rows.stored).bits // 8 <= _stored_bytes(rows.device):
            self._all = rows.as_stored(slice(0, len(rows)), self._num_padded)
        else:
            self._buffer = torch.empty(size, rows.dim, dtype=rows.stored, device=rows.device)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, self._num_padded, self._size):
            if self._all is not None:
                yield start, self._all[start : start + self._size]
            else:
                yield start, self._rows.as_stored(slice(start, start + self._size), self._size, self._buffer)


def _stored_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _STORED_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free // 4)


def _shortlist(bound: Tensor, k: int, arithmetic: Arithmetic, size: int) -> Shortlist:
    return Shortlist(bound, k, arithmetic, -(-len(bound) // size) * size, max_per_query=32 * k + 64)


def _joined(found: list[TopK]) -> TopK:
    return TopK(*(torch.cat([getattr(best, name) for best in found]) for name in ("is_certain", "similarity", "item")))


def _search_uncertain_again(
    best: TopK, queries: UnitVectors, items: UnitVectors, arithmetic: Arithmetic, block_size: int
) -> SimilarityAndIndex:
    """Queries that low precision leaves open are searched again in fp32, and what that leaves open exactly."""
    open_Q = (~best.is_certain).nonzero().squeeze(1)
    if len(open_Q) == 0:
        return best.similarity, best.item
    k = best.item.shape[1]
    similarity = torch.empty(len(queries), k, device=queries.device)
    item = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    similarity[best.is_certain], item[best.is_certain] = best.similarity, best.item
    rest = queries.subset(open_Q)
    if arithmetic is FP32:
        similarity[open_Q], item[open_Q] = exact_top_k(rest, items, k)
    else:
        again, _ = search_both(rest.as_float32(), items.as_float32(), k, FP32, block_size, one_way=True)
        similarity[open_Q], item[open_Q] = again
    return similarity, item


def _power_of_two(number: int) -> int:
    """The smallest that is not below."""
    return 1 << (number - 1).bit_length()


def _group(size: int, k: int, largest: int) -> int:
    """Small enough that the K best rarely share a group."""
    group = largest
    while group > 1 and size < 4 * k * group:
        group //= 2
    return group
