"""Vectors of millions of texts in a memory-mapped file, and the nearest of them in blocks that fit into memory.

Shapes: U distinct texts, N queries, M candidates, D dimensions.
"""

from __future__ import annotations

import enum
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlkd.errors import fail
from mlkd.knn.merge import ShardedSearch
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder

Vectors = np.memmap[Any, np.dtype[Any]]
_TEXTS_AT_ONCE = 16_384
_ROWS_AT_ONCE = 65_536


class VectorDtype(enum.Enum):
    """Number format of the file: `fp16` halves it and moves a cosine by less than 0.001."""

    fp32 = "fp32"
    fp16 = "fp16"


class DistinctTexts:
    """Each text once, in order of first occurrence.

    >>> found = DistinctTexts(["a", "b", "a"])
    >>> found.texts, found.row_of_line.tolist(), found.first_line.tolist()
    (['a', 'b'], [0, 1, 0], [0, 1])
    """

    def __init__(self, lines: Sequence[str]) -> None:
        rows: dict[str, int] = {}
        self.row_of_line = np.fromiter((rows.setdefault(line, len(rows)) for line in lines), np.int64, len(lines))
        self.texts = list(rows)
        self.first_line = np.unique(self.row_of_line, return_index=True)[1]


def encode_to_file(
    encoder: Encoder, texts: Sequence[str], path: Path, storage: VectorDtype = VectorDtype.fp32
) -> Vectors:
    """Encode block after block into `path`; vectors are scaled to unit norm, zero vectors stay zero.

    Args:
        encoder: any encoder.
        texts: at least one.
        path: written as raw numbers, row after row.
        storage: number format of the file.

    Returns:
        (U, D), mapped from the file.

    Raises:
        MlkdError: E601 if a vector holds NaN or infinity, E503 if the disk cannot hold all vectors.
    """
    file: Vectors | None = None
    kind = np.float16 if storage is VectorDtype.fp16 else np.float32
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        block = texts[start : start + _TEXTS_AT_ONCE]
        vectors_BD = encoder.encode(block).detach().float().cpu()
        bad = (~torch.isfinite(vectors_BD).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            what = f"{len(bad)} of {len(block)} vectors hold NaN or infinity, first for {block[bad[0]][:60]!r}"
            raise fail("E601", what, remedy="look at the loss of the run that made this encoder")
        if file is None:
            shape = (len(texts), vectors_BD.shape[1])
            _check_space(path, shape[0] * shape[1] * np.dtype(kind).itemsize)
            file = np.memmap(path, dtype=kind, mode="w+", shape=shape)
        file[start : start + len(block)] = torch.nn.functional.normalize(vectors_BD, dim=1).numpy()
    assert file is not None, "no texts to encode"
    file.flush()
    return file


def nearest_both_ways_on_disk(
    search: NeighbourSearch, source: Vectors, target: Vectors, rows_at_once: int = _ROWS_AT_ONCE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The nearest target of each source row, (N,), and the nearest source of each target row, (M,).

    Both come from one pass over pairs of blocks, of which only two are in memory. Of equal cosines the lowest row wins;
    the size of the blocks changes nothing.

    Args:
        search: how a pair of blocks is searched.
        source: (N, D).
        target: (M, D).
        rows_at_once: rows of a block.
    """
    gathered = ShardedSearch(search, len(source), len(target), 1)
    for row in range(0, len(source), rows_at_once):
        source_BD = _block(source, row, rows_at_once)
        for column in range(0, len(target), rows_at_once):
            gathered.add(row, source_BD, column, _block(target, column, rows_at_once))
    forward, backward = gathered.result()
    return forward.index[:, 0].numpy(), backward.index[:, 0].numpy()


def _block(vectors: Vectors, start: int, size: int) -> Tensor:
    return torch.from_numpy(np.array(vectors[start : start + size], dtype=np.float32))


def _check_space(path: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        what = f"vectors of {num_bytes / 2**30:.1f} GiB do not fit: {path.parent} has {free / 2**30:.1f} GiB left"
        raise fail("E503", what, remedy="set vectors_dir to a larger disk, or vectors=fp16")
