"""Neighbours of both sides, searched and saved by blocks of the source, then put together.

Shapes: N source sentences, M target sentences, B of a source block, K neighbours.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlkd.knn.merge import ShardedSearch, merge
from mlkd.knn.neighbours import Neighbours, NeighbourSearch
from mlkd.mining.vector_blocks import VectorBlocks, damaged, read_array
from mlkd.runtime.atomic_files import write_array

BLOCK_SENTENCES = 65_536
_PAIR = np.dtype([("similarity", "<f4"), ("index", "<i4")])
_TARGET_BLOCKS = 4  # in memory at a time: each look at a block of sources costs as much as normalising both
_MERGED_ROWS = 1 << 20


class NeighbourBlocks:
    """Each block of sources against all targets, and each target against the sources of that block.

    Args:
        source: vectors, of which none is missing when `search_block` is called.
        target: same.
        search: how neighbours are searched.
        num_neighbours: K.
        folder: of searches with one encoder's vectors; this one has a folder of its own in it.
    """

    def __init__(
        self, source: VectorBlocks, target: VectorBlocks, search: NeighbourSearch, num_neighbours: int, folder: Path
    ) -> None:
        self.source, self.target = source, target
        self.search, self.num_neighbours = search, num_neighbours
        described = [str(num_neighbours), str(BLOCK_SENTENCES), *source.names, "", *target.names]
        self.folder = folder / hashlib.sha256("\n".join(described).encode()).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(_slices(len(self.source.texts)))

    def missing(self) -> list[int]:
        """Blocks of the source that are not searched."""
        return [block for block in range(len(self)) if not self._path("forward", block).is_file()]

    def search_block(self, block: int) -> int:
        """Search one block of sources among all targets, both ways; returns its number of sources."""
        rows = _slices(len(self.source.texts))[block]
        source_BD = self.source.rows(rows.start, rows.stop)
        num_targets = len(self.target.texts)
        gathered = ShardedSearch(self.search, len(source_BD), num_targets, self.num_neighbours)
        for columns in _slices(num_targets, _TARGET_BLOCKS * BLOCK_SENTENCES):
            gathered.add(0, source_BD, columns.start, self.target.rows(columns.start, columns.stop))
        forward, backward = gathered.result()
        write_array(self._path("backward", block), _packed(backward))
        # Written last: where it is, the block is done.
        write_array(self._path("forward", block), _packed(forward))
        return len(source_BD)

    def merged(self) -> tuple[Neighbours, Neighbours]:
        """Of every source among the targets, (N, min(K, M)), and of every target among the sources, (M, min(K, N))."""
        rows = _slices(len(self.source.texts))
        forward = [
            _unpacked(self._read("forward", block, rows[block].stop - rows[block].start)) for block in range(len(self))
        ]
        num_targets = len(self.target.texts)
        backward_blocks = [self._read("backward", block, num_targets) for block in range(len(self))]
        backward = []
        for start in range(0, num_targets, _MERGED_ROWS):
            parts = [
                _unpacked(found[start : start + _MERGED_ROWS], first=rows[block].start)
                for block, found in enumerate(backward_blocks)
            ]
            backward.append(merge(parts, self.num_neighbours))
        return _stacked(forward), _stacked(backward)

    def _path(self, direction: str, block: int) -> Path:
        return self.folder / f"{direction}-{block:05}.npy"

    def _read(self, direction: str, block: int, num_rows: int) -> NDArray[np.void]:
        path = self._path(direction, block)
        found = read_array(path)
        if found.dtype != _PAIR or len(found) != num_rows:
            raise damaged(path, f"{len(found):,} rows of {found.dtype}, not {num_rows:,}")
        return found


def _slices(length: int, size: int | None = None) -> list[slice]:
    size = size or BLOCK_SENTENCES
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _packed(neighbours: Neighbours) -> NDArray[np.void]:
    packed = np.empty(tuple(neighbours.index.shape), dtype=_PAIR)
    packed["similarity"] = neighbours.similarity.numpy()
    packed["index"] = neighbours.index.numpy()
    return packed


def _unpacked(packed: NDArray[np.void], first: int = 0) -> Neighbours:
    index = torch.from_numpy(packed["index"].astype(np.int64)) + first
    return Neighbours(torch.from_numpy(packed["similarity"].astype(np.float32)), index)


def _stacked(parts: list[Neighbours]) -> Neighbours:
    return Neighbours(torch.cat([p.similarity for p in parts]), torch.cat([p.index for p in parts]))
