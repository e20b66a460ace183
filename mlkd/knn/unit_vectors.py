"""Rows of length 1 on a grid on which dot products are exact, and which of them are equal.

Each row is scaled to length 1 and rounded to multiples of 2^-26. Products of such entries are multiples of 2^-52, and
sums of them stay below 2: float64 holds every partial sum exactly, in any order, on any device and in any library.
The similarity of two rows is this dot product rounded to float32: the same number wherever, whenever and beside
whatever else it is computed, and equal rows have equal similarities. The grid moves a cosine by about 6e-9, less than
rounding it to float32 does.

Shapes: N rows, U distinct rows, D dimensions, P pairs, K entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mlkd.errors import fail

GRID = 2.0**26
# Entries of one chunk: small enough for a CPU's cache, large enough to keep a GPU busy.
_CHUNK = {"cpu": 2**17, "cuda": 2**24}


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """Rows of length 1, computed from the caller's vectors when they are needed: no copy of a corpus is made.

    Args:
        vectors: (N, D) the caller's, of any length and floating type.
        scale: (U,) float64 on the device that computes: 2^26 / length, 0 for a row of zeros.
        chosen: (U,) the rows of `vectors` that are meant; None for all.
        residual: (U,) float64 distance between each row and its form in `stored`.
        stored: type in which blocks are multiplied first.
    """

    vectors: Tensor
    scale: Tensor
    chosen: Tensor | None
    residual: Tensor
    stored: torch.dtype

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def on_grid(self, rows: Tensor | slice) -> Tensor:
        """(R, D) float64 whole numbers: 2^26 times the rows."""
        return (self._given(rows) * self.scale[rows, None]).round_()

    def as_stored(self, rows: slice, num_rows: int, out: Tensor | None = None) -> Tensor:
        """(num_rows, D) in the type of the first look, filled up with zeros."""
        block = torch.zeros(num_rows, self.dim, dtype=self.stored, device=self.device) if out is None else out
        stop = min(rows.stop, len(self))
        for chunk in _chunks(stop - rows.start, self.dim, self.device):
            part = slice(rows.start + chunk.start, rows.start + chunk.stop)
            block[chunk] = self._given(part) * (self.scale[part, None] / GRID)
        block[max(0, stop - rows.start) :] = 0
        return block

    def subset(self, rows: Tensor | slice) -> UnitVectors:
        """The rows with these numbers."""
        if self.chosen is None and isinstance(rows, slice):
            return UnitVectors(self.vectors[rows], self.scale[rows], None, self.residual[rows], self.stored)
        chosen = rows if self.chosen is None else self.chosen[rows]
        assert isinstance(chosen, Tensor)
        return UnitVectors(self.vectors, self.scale[rows], chosen, self.residual[rows], self.stored)

    def as_float32(self) -> UnitVectors:
        """The same rows, to be multiplied in float32 first; the distance by half a unit in the last place, at most."""
        residual = torch.full_like(self.residual, 1.01 * 2.0**-24 + 0.5 / GRID * self.dim**0.5)
        return UnitVectors(self.vectors, self.scale, self.chosen, residual, torch.float32)

    def _given(self, rows: Tensor | slice) -> Tensor:
        chosen = rows if self.chosen is None else self.chosen[rows]
        if isinstance(chosen, Tensor):
            given = self.vectors.index_select(0, chosen.to(self.vectors.device))
        else:
            given = self.vectors[chosen]
        return given.to(self.device).float().double()


@dataclass(frozen=True, slots=True)
class DistinctVectors:
    """A corpus without its repetitions.

    Args:
        rows: the U distinct rows, in order of first occurrence.
        row_of: (N,) number of each original row among them; None where every row is distinct.
    """

    rows: UnitVectors
    row_of: Tensor | None


def distinct_vectors(vectors: Tensor, side: str, device: torch.device, stored: torch.dtype) -> DistinctVectors:
    """Scale the rows of one side and find equal ones.

    Args:
        vectors: (N, D) of any length; a row of zeros stays one.
        side: `source` or `target`, for the message.
        device: that computes.
        stored: type of the first look.

    Raises:
        MlkdError: E601 if an entry is NaN or infinite.
    """
    vectors = vectors.detach()
    if device.type == "cuda" and _fits(device, vectors):
        vectors = vectors.to(device)
    num_rows, dim = vectors.shape
    scale, residual, key = (torch.empty(num_rows, dtype=torch.float64, device=device) for _ in range(3))
    # Sums of 26-bit entries times 20-bit numbers are exact too, so that equal rows have equal keys.
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(1, 2**20, (dim,), generator=generator).double().to(device)
    for chunk in _chunks(num_rows, dim, device):
        given = vectors[chunk].to(device).float().double()
        scale[chunk] = GRID / _row_sums(given * given).sqrt_()
        scale[chunk][scale[chunk].isinf()] = 0.0
        given *= scale[chunk, None]
        stored_rows = (given / GRID).to(stored).double()
        grid = given.round_()
        key[chunk] = grid @ numbers
        residual[chunk] = grid.div_(GRID).sub_(stored_rows).norm(dim=1)
    _refuse_not_finite(residual, vectors, side)
    rows = UnitVectors(vectors, scale, None, residual, stored)
    return _without_repetitions(rows, key)


def similarities(queries: UnitVectors, query_P: Tensor, items: UnitVectors, item_PK: Tensor) -> Tensor:
    """(P, K) float32: the exact dot products of pairs, rounded once."""
    num_pairs, k = item_PK.shape
    result = torch.empty(num_pairs, k, device=queries.device)
    for chunk in _chunks(num_pairs, queries.dim * k, queries.device):
        query_CD1 = queries.on_grid(query_P[chunk]).unsqueeze(2)
        item_CKD = items.on_grid(item_PK[chunk].flatten()).view(-1, k, queries.dim)
        result[chunk] = as_similarity(torch.bmm(item_CKD, query_CD1).squeeze(2))
    return result


def as_similarity(products: Tensor) -> Tensor:
    """Products of rows on the grid as float32 similarities; adding 0 makes -0 a plain 0."""
    return products.mul(GRID**-2).float().add_(0.0)


def _chunks(num_rows: int, entries_per_row: int, device: torch.device) -> Iterator[slice]:
    step = max(1, _CHUNK.get(device.type, 2**17) // max(1, entries_per_row))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def _row_sums(values_ND: Tensor) -> Tensor:
    """Sums by halving, in place: elementwise additions alone, so that a row's sum never depends on its neighbours."""
    while values_ND.shape[1] > 1:
        half = (values_ND.shape[1] + 1) // 2
        values_ND[:, : values_ND.shape[1] - half] += values_ND[:, half:]
        values_ND = values_ND[:, :half]
    return values_ND[:, 0].clone()


def _refuse_not_finite(residual: Tensor, vectors: Tensor, side: str) -> None:
    suspects = (~torch.isfinite(residual)).nonzero().flatten().tolist()
    if suspects:
        raise fail("E601", f"{len(suspects)} {side} vectors hold NaN or infinity, first in row {suspects[0]}")


def _without_repetitions(rows: UnitVectors, key: Tensor) -> DistinctVectors:
    num_rows = len(rows)
    everyone = torch.arange(num_rows, device=key.device)
    ordered = key.sort()
    is_new = torch.ones(num_rows, dtype=torch.int64, device=key.device)
    is_new[1:] = ordered.values[1:] != ordered.values[:-1]
    group = torch.empty_like(everyone)
    group[ordered.indices] = is_new.cumsum(0) - 1
    first_of_group = torch.full((int(group.max()) + 1,), num_rows, device=key.device)
    first_of_group.scatter_reduce_(0, group, everyone, "amin")
    if len(first_of_group) == num_rows:
        return DistinctVectors(rows, None)
    first = first_of_group[group]
    repeated = (first != everyone).nonzero().squeeze(1)
    # Equal keys of different rows are possible, if hardly so: such a row stands for itself.
    for chunk in _chunks(len(repeated), rows.dim, rows.device):
        differs = (rows.on_grid(repeated[chunk]) != rows.on_grid(first[repeated[chunk]])).any(dim=1)
        first[repeated[chunk][differs]] = repeated[chunk][differs]
    is_first = first == everyone
    number = is_first.long().cumsum(0) - 1
    return DistinctVectors(rows.subset(is_first.nonzero().squeeze(1)), number[first])


def _fits(device: torch.device, vectors: Tensor) -> bool:
    """Whether a corpus may stay on the device; else blocks of it are copied there."""
    free, _ = torch.cuda.mem_get_info(device)
    return bool(vectors.numel() * vectors.element_size() < free / 4)
