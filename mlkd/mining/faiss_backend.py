"""Exact inner-product search with faiss, and clear errors where its wheels are missing or exclude each other.

Shapes: N queries, M corpus rows, D dimensions, K neighbours.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import fail

_CPU_WHEELS = ("faiss-cpu",)
_GPU_WHEELS = ("faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu13")


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


def faiss_candidates(query_ND: Tensor, corpus_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top K inner products of unit rows: similarity (N, K) float32 and index (N, K) int64, ties in faiss's order."""
    faiss = import_faiss()
    index = faiss.IndexFlatIP(corpus_MD.shape[1])
    index.add(corpus_MD.cpu().contiguous().numpy())
    similarity, rows = index.search(query_ND.cpu().contiguous().numpy(), k)
    return torch.from_numpy(similarity), torch.from_numpy(rows)


def _is_installed(wheel: str) -> bool:
    try:
        importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
