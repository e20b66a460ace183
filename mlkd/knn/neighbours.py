"""Exact cosine nearest neighbours of both sides, the same to the last bit on every device and backend.

Shapes: N source rows, M target rows, D dimensions, K neighbours.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.knn.block_search import search_both
from mlkd.knn.duplicates import repeat_items, repeat_queries
from mlkd.knn.faiss_backend import flat_top_k, inverted_file_top_k
from mlkd.knn.similarity_precision import FP32, Arithmetic, Precision, arithmetic_of
from mlkd.knn.unit_vectors import DistinctVectors, UnitVectors, distinct_vectors

logger = logging.getLogger("mlkd")

# A block should stay in a CPU's cache; on a GPU it should outlast the launch of its kernels.
_BLOCK_MB = {"cpu": 8, "cuda": 1024}
_SIMILARITIES_PER_MB = 2**18
_RECALL_ROWS = 1000


class Backend(enum.Enum):
    """What searches: `torch` is exact, the fastest, and needs nothing else; `faiss` is its flat index, exact too;
    `faiss_ivf` its inverted file, approximate, for many millions of rows."""

    torch = "torch"
    faiss = "faiss"
    faiss_ivf = "faiss_ivf"


@dataclass(frozen=True, slots=True)
class Recall:
    """What an approximate search found of what an exact one finds, for a random sample of rows.

    Args:
        at_1: share of rows whose nearest neighbour was found, 0 to 1.
        at_k: share of the K nearest that were found, 0 to 1.
        num_rows: in the sample.
    """

    at_1: float
    at_k: float
    num_rows: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest rows of the other side, nearest first; equal similarities in ascending order of index.

    Args:
        similarity: (N, K) float32 cosines on the CPU, as `mlkd.knn.unit_vectors` defines them.
        index: (N, K) int64 rows of the other side on the CPU.
        recall: of an approximate search; None where it is exact.
    """

    similarity: Tensor
    index: Tensor
    recall: Recall | None = None


@dataclass(kw_only=True, slots=True)
class NeighbourSearch:
    """How neighbours are searched. Exact backends give the same result, to the last bit, whatever the fields.

    Args:
        backend: what searches.
        device: `auto` (the first CUDA device if there is one), `cpu`, `cuda`, `cuda:1`, ...
        precision: of the first look at every pair; what it cannot decide is decided exactly. For backend torch.
        block_mb: size of one block of the similarity matrix, in MiB of float32; None for 8 on a CPU, 1024 on a GPU.
        num_lists: of faiss_ivf; None for 4 sqrt(rows).
        num_probes: lists that faiss_ivf looks into per row; more find more and take longer.
    """

    backend: Backend = field(default=Backend.torch)
    device: str = "auto"
    precision: Precision = Precision.auto
    block_mb: int | None = None
    num_lists: int | None = None
    num_probes: int = 32

    def __post_init__(self) -> None:
        problems = out_of_range(self, "block_mb", "num_lists", "num_probes", ge=1)
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
            source_ND: vectors of any length; a zero row has similarity 0 with everything. Left as they are.
            target_MD: same.
            num_neighbours: K, at least 1; at most M and N neighbours come back.

        Returns:
            (N, min(K, M)) and (M, min(K, N)).

        Raises:
            MlkdError: E501 for a device or precision that is not there, E502 without faiss, E601 for NaN or infinity.
        """
        source, target, arithmetic = self._prepare(source_ND, target_MD, num_neighbours)
        if self.backend is Backend.torch:
            block_size = self._block_size()
            forward, backward = search_both(
                source.rows, target.rows, num_neighbours, arithmetic, block_size, one_way=False
            )
            assert backward is not None
            return (
                _neighbours(forward, source, target, num_neighbours),
                _neighbours(backward, target, source, num_neighbours),
            )
        return self._one_way(source, target, num_neighbours), self._one_way(target, source, num_neighbours)

    def one_way(self, query_ND: Tensor, corpus_MD: Tensor, num_neighbours: int) -> Neighbours:
        """The first half of `both_ways`."""
        query, corpus, arithmetic = self._prepare(query_ND, corpus_MD, num_neighbours)
        if self.backend is not Backend.torch:
            return self._one_way(query, corpus, num_neighbours)
        found, _ = search_both(query.rows, corpus.rows, num_neighbours, arithmetic, self._block_size(), one_way=True)
        return _neighbours(found, query, corpus, num_neighbours)

    def _one_way(self, query: DistinctVectors, corpus: DistinctVectors, num_neighbours: int) -> Neighbours:
        """With faiss; what it leaves open is searched here."""
        queries, items, k = query.rows, corpus.rows, min(num_neighbours, len(corpus.rows))
        recall = None
        if self.backend is Backend.faiss:
            similarity, index, is_done = flat_top_k(queries, items, k)
        else:
            similarity, index, is_done = inverted_file_top_k(queries, items, k, self.num_lists, self.num_probes)
            recall = self._recall(index, queries, items)
        rest = (~is_done).nonzero().squeeze(1)
        if len(rest) > 0:
            similarity[rest], index[rest] = self._exact(queries.subset(rest), items, k)
        return _neighbours((similarity, index), query, corpus, num_neighbours, recall)

    def _exact(self, queries: UnitVectors, items: UnitVectors, k: int) -> tuple[Tensor, Tensor]:
        return search_both(queries, items, k, FP32, self._block_size(), one_way=True)[0]

    def _recall(self, index_NK: Tensor, queries: UnitVectors, items: UnitVectors) -> Recall:
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(len(queries), generator=generator)[:_RECALL_ROWS].to(index_NK.device)
        _, exact_SK = self._exact(queries.subset(sample), items, index_NK.shape[1])
        found_SK = index_NK[sample]
        at_1 = (found_SK[:, 0] == exact_SK[:, 0]).double().mean()
        at_k = (exact_SK[:, :, None] == found_SK[:, None, :]).any(dim=2).double().mean()
        recall = Recall(float(at_1), float(at_k), len(sample))
        what = "faiss_ivf finds %.2f%% of the nearest and %.2f%% of the %d nearest neighbours (sample of %d rows)"
        logger.info(what, 100 * recall.at_1, 100 * recall.at_k, index_NK.shape[1], recall.num_rows)
        return recall

    def _prepare(
        self, source: Tensor, target: Tensor, num_neighbours: int
    ) -> tuple[DistinctVectors, DistinctVectors, Arithmetic]:
        assert num_neighbours >= 1, f"num_neighbours must be >= 1 (got {num_neighbours})"
        assert len(source) > 0 and len(target) > 0, "nothing to search: a side has no rows"
        assert source.shape[1] == target.shape[1], "both sides must have the same dimension"
        device = self._device()
        arithmetic = arithmetic_of(self.precision, device) if self.backend is Backend.torch else FP32
        with torch.no_grad():
            return (
                distinct_vectors(source, "source", device, arithmetic.stored),
                distinct_vectors(target, "target", device, arithmetic.stored),
                arithmetic,
            )

    def _block_size(self) -> int:
        """In similarities."""
        return (self.block_mb or _BLOCK_MB.get(self._device().type, 8)) * _SIMILARITIES_PER_MB

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def _neighbours(
    found: tuple[Tensor, Tensor],
    query: DistinctVectors,
    corpus: DistinctVectors,
    num_neighbours: int,
    recall: Recall | None = None,
) -> Neighbours:
    found = repeat_queries(repeat_items(found, corpus.row_of, num_neighbours), query.row_of)
    return Neighbours(found[0].cpu().contiguous(), found[1].cpu().contiguous(), recall)
