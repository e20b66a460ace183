"""Search with faiss: its flat index, proven exact like ours, and its inverted file, with clear errors without wheels.

Shapes: N queries, U corpus rows, D dimensions, K neighbours, L candidates.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import fail
from mlkd.knn.similarity_precision import FP32, TF32, error_bound
from mlkd.knn.top_k import order_ties
from mlkd.knn.unit_vectors import UnitVectors, similarities

_CPU_WHEELS = ("faiss-cpu",)
_GPU_WHEELS = ("faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu13")
_ROWS_AT_ONCE = 8192
# faiss asks for at least 39 training rows a list, and uses at most 256.
_TRAINING_ROWS_PER_LIST = 64


def import_faiss() -> Any:
    """The module `faiss`, of which exactly one wheel must be installed.

    Raises:
        MlkdError: E502 if no wheel is installed, or two that overwrite each other's files.
    """
    wheels = [name for name in _CPU_WHEELS + _GPU_WHEELS if _is_installed(name)]
    if len(wheels) > 1:
        remedy = (
            f"pip uninstall -y {' '.join(wheels)} && pip install 'mlkd[cpu]' (or 'mlkd[gpu]'), or search.backend=torch"
        )
        raise fail("E502", f"{' and '.join(wheels)} are both installed and share one module", remedy=remedy)
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        remedy = "pip install 'mlkd[cpu]' (or 'mlkd[gpu]'), or search.backend=torch, which is exact too"
        raise fail("E502", f"search.backend=faiss needs faiss ({error})", remedy=remedy) from error


def flat_top_k(queries: UnitVectors, items: UnitVectors, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K best by `IndexFlatIP`: twice as many candidates, compared by exact similarity.

    Args:
        queries: rows as float32.
        items: same.
        k: at most U.

    Returns:
        similarity (N, K), index (N, K) and (N,) whether these are proven to be the best: the K-th is better than
        anything can be that faiss found no better than its last candidate.
    """
    index, is_on_gpu = _placed(import_faiss().IndexFlatIP(items.dim), queries.device)
    _add(index, items)
    num_candidates = min(2 * k, len(items))
    arithmetic = TF32 if is_on_gpu else FP32
    bound_N = error_bound(arithmetic, queries.residual, float(items.residual.max()), items.dim)
    similarity, item, last_N = _ranked(index, queries, items, num_candidates)
    is_certain = similarity[:, k - 1].double() > last_N.double() + bound_N
    if num_candidates == len(items):
        is_certain = torch.ones_like(is_certain)
    return similarity[:, :k], item[:, :k], is_certain


def inverted_file_top_k(
    queries: UnitVectors, items: UnitVectors, k: int, num_lists: int | None, num_probes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The K best of the lists that are looked into (`IndexIVFFlat`), compared by exact similarity.

    Args:
        queries: rows as float32.
        items: same.
        k: at most U.
        num_lists: lists the corpus is split into; None for 4 sqrt(U), a common choice.
        num_probes: lists looked into per query.

    Returns:
        similarity (N, K), index (N, K) and (N,) whether K rows were found at all.
    """
    faiss = import_faiss()
    most = max(1, len(items) // 39)
    lists = min(num_lists or max(1, int(4 * len(items) ** 0.5)), most)
    quantizer = faiss.IndexFlatIP(items.dim)
    index = faiss.IndexIVFFlat(quantizer, items.dim, lists, faiss.METRIC_INNER_PRODUCT)
    generator = torch.Generator().manual_seed(0)
    num_training = min(len(items), _TRAINING_ROWS_PER_LIST * lists)
    sample = torch.randperm(len(items), generator=generator)[:num_training].sort().values.to(items.device)
    index.train(items.subset(sample).as_stored(slice(0, num_training), num_training).cpu().numpy())
    index.nprobe = min(num_probes, lists)
    index, _ = _placed(index, queries.device)
    _add(index, items)
    similarity, item, _ = _ranked(index, queries, items, min(2 * k, len(items)))
    return similarity[:, :k], item[:, :k], similarity[:, k - 1] > -torch.inf


def _placed(index: Any, device: torch.device) -> tuple[Any, bool]:
    """On the GPU where the search computes there and this faiss can."""
    faiss = import_faiss()
    if device.type != "cuda" or not hasattr(faiss, "StandardGpuResources"):
        return index, False
    # faiss lets its products use TF32: StandardGpuResources.cpp, CUBLAS_TF32_TENSOR_OP_MATH.
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index), True


def _add(index: Any, items: UnitVectors) -> None:
    for rows in _chunks(len(items)):
        index.add(items.as_stored(rows, rows.stop - rows.start).cpu().numpy())


def _ranked(index: Any, queries: UnitVectors, items: UnitVectors, num_candidates: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, L) similarities and rows, best first, missing ones at -inf; and (N,) faiss's own similarity of its last."""
    parts = []
    for rows in _chunks(len(queries)):
        query_CD = queries.as_stored(rows, rows.stop - rows.start).cpu().numpy()
        found, item = (torch.from_numpy(array).to(queries.device) for array in index.search(query_CD, num_candidates))
        numbers = torch.arange(rows.start, rows.stop, device=queries.device)
        similarity = similarities(queries, numbers, items, item.clamp(min=0))
        parts.append((*order_ties(similarity.where(item >= 0, -torch.inf), item), found[:, -1]))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


def _chunks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, num_rows))


def _is_installed(wheel: str) -> bool:
    try:
        importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
