"""Exact cosine nearest neighbours in both directions from one pass over blocks of the similarity matrix.

Shapes: N source rows, M target rows, D dimensions, K neighbours, R x C one block.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, fail
from mlkd.mining.faiss_backend import faiss_candidates
from mlkd.mining.top import order_ties, top_of_rows

_BYTES_PER_SIMILARITY = 4


class Backend(enum.Enum):
    """What searches: `torch` needs nothing else and is the reference; `faiss` is its flat (exact) index."""

    torch = "torch"
    faiss = "faiss"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest rows of the other side, nearest first; equal similarities in ascending order of index.

    Args:
        similarity: (N, K) float32 cosines on the CPU.
        index: (N, K) int64 rows of the other side on the CPU.
    """

    similarity: Tensor
    index: Tensor


@dataclass(kw_only=True, slots=True)
class NeighbourSearch:
    """How neighbours are searched. Results do not depend on these fields beyond float32 rounding of a cosine.

    Args:
        backend: what searches.
        device: `auto` (the first CUDA device if there is one), `cpu`, `cuda`, `cuda:1`, ...
        block_mb: size of one block of the similarity matrix, in MiB; bounds the memory of the search.
    """

    backend: Backend = field(default=Backend.torch)
    device: str = "auto"
    block_mb: int = 64

    def __post_init__(self) -> None:
        problems = []
        if self.block_mb < 1:
            problems.append(Problem("E204", f"must be >= 1 (got {self.block_mb})", where="block_mb"))
        try:
            self._device()
        except RuntimeError:
            what = f"'{self.device}' is no device: use auto, cpu, cuda or cuda:N"
            problems.append(Problem("E204", what, where="device"))
        if problems:
            raise MlkdError(problems)

    def both_ways(self, source_ND: Tensor, target_MD: Tensor, num_neighbours: int) -> tuple[Neighbours, Neighbours]:
        """Neighbours of every source row among the targets, and of every target row among the sources.

        Args:
            source_ND: vectors of any length; they are normalised here, and a zero row keeps cosine 0 with everything.
            target_MD: same.
            num_neighbours: K, at least 1; at most M and N neighbours come back.

        Returns:
            (N, min(K, M)) and (M, min(K, N)).
        """
        source_ND, target_MD = _unit_rows(source_ND), _unit_rows(target_MD)
        _check_shapes(source_ND, target_MD, num_neighbours)
        if self.backend is Backend.faiss:
            return (
                self._faiss_one_way(source_ND, target_MD, num_neighbours),
                self._faiss_one_way(target_MD, source_ND, num_neighbours),
            )
        return self._blocks_both_ways(source_ND, target_MD, num_neighbours)

    def one_way(self, query_ND: Tensor, corpus_MD: Tensor, num_neighbours: int) -> Neighbours:
        """The first half of `both_ways`, at about half its cost."""
        query_ND, corpus_MD = _unit_rows(query_ND), _unit_rows(corpus_MD)
        _check_shapes(query_ND, corpus_MD, num_neighbours)
        if self.backend is Backend.faiss:
            return self._faiss_one_way(query_ND, corpus_MD, num_neighbours)
        best = _RunningBest(len(query_ND), min(num_neighbours, len(corpus_MD)))
        with _exact_float32():
            for rows, columns, block_RC in self._similarity_blocks(query_ND, corpus_MD):
                best.add(rows, columns.start, block_RC)
        return best.result()

    def _blocks_both_ways(self, source_ND: Tensor, target_MD: Tensor, k: int) -> tuple[Neighbours, Neighbours]:
        forward = _RunningBest(len(source_ND), min(k, len(target_MD)))
        backward = _RunningBest(len(target_MD), min(k, len(source_ND)))
        with _exact_float32():
            for rows, columns, block_RC in self._similarity_blocks(source_ND, target_MD):
                forward.add(rows, columns.start, block_RC)
                backward.add(columns, rows.start, block_RC.T)
        return forward.result(), backward.result()

    def _similarity_blocks(self, source_ND: Tensor, target_MD: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks in ascending order of row and column, which the tie rule of `_RunningBest` relies on."""
        device = self._device()
        side = max(1, int((self.block_mb * 2**20 / _BYTES_PER_SIMILARITY) ** 0.5))
        if device.type != "cpu" and _fits(device, source_ND, target_MD):
            source_ND, target_MD = source_ND.to(device), target_MD.to(device)
        for row in range(0, len(source_ND), side):
            rows = slice(row, min(row + side, len(source_ND)))
            source_RD = source_ND[rows].to(device)
            for column in range(0, len(target_MD), side):
                columns = slice(column, min(column + side, len(target_MD)))
                yield rows, columns, source_RD @ target_MD[columns].to(device).T

    def _faiss_one_way(self, query_ND: Tensor, corpus_MD: Tensor, k: int) -> Neighbours:
        """faiss breaks ties as it likes: order them here, and search rows tied at the last place again in torch."""
        k = min(k, len(corpus_MD))
        similarity, index = faiss_candidates(query_ND, corpus_MD, min(k + 1, len(corpus_MD)))
        similarity, index = order_ties(similarity, index)
        if similarity.shape[1] > k:
            tied = (similarity[:, k] == similarity[:, k - 1]).nonzero().squeeze(1)
            similarity, index = similarity[:, :k].clone(), index[:, :k].clone()
            if len(tied) > 0:
                exact = NeighbourSearch(device=self.device, block_mb=self.block_mb).one_way(
                    query_ND[tied], corpus_MD, k
                )
                similarity[tied], index[tied] = exact.similarity, exact.index
        return Neighbours(similarity, index)

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


class _RunningBest:
    """The best K columns of each row seen so far; columns must come in ascending order."""

    def __init__(self, num_rows: int, k: int) -> None:
        self.similarity = torch.full((num_rows, k), -torch.inf)
        self.index = torch.full((num_rows, k), -1, dtype=torch.int64)

    def add(self, rows: slice, first_column: int, block_RC: Tensor) -> None:
        similarity, index = top_of_rows(block_RC, min(self.index.shape[1], block_RC.shape[1]))
        merged = torch.cat([self.similarity[rows], similarity.cpu()], dim=1)
        columns = torch.cat([self.index[rows], index.cpu() + first_column], dim=1)
        # Earlier columns stand first, so a stable sort gives equal similarities to the lowest index.
        order = merged.sort(dim=1, descending=True, stable=True).indices[:, : self.index.shape[1]]
        self.similarity[rows] = merged.gather(1, order)
        self.index[rows] = columns.gather(1, order)

    def result(self) -> Neighbours:
        return Neighbours(self.similarity, self.index)


def _unit_rows(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.detach().float(), dim=1)


def _check_shapes(source_ND: Tensor, target_MD: Tensor, num_neighbours: int) -> None:
    assert num_neighbours >= 1, f"num_neighbours must be >= 1 (got {num_neighbours})"
    assert len(source_ND) > 0 and len(target_MD) > 0, "nothing to search: a side has no rows"
    assert source_ND.shape[1] == target_MD.shape[1], "both sides must have the same dimension"
    for side, vectors in (("source", source_ND), ("target", target_MD)):
        bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise fail("E601", f"{len(bad)} {side} vectors hold NaN or infinity, first in row {bad[0]}")


def _fits(device: torch.device, *tensors: Tensor) -> bool:
    """Whether both corpora may stay on the device; else blocks are copied one at a time."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) < free / 2


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """No gradient, and no TF32 where training switched it on: it moves cosines in the third decimal."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
