"""Vectors on disk, found by the text they belong to: append-only shards, each complete or absent.

Shapes: N texts, E dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.errors import fail
from mlkd.runtime.atomic_files import write_array, write_bytes

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Keys = np.ndarray[Any, np.dtype[np.bytes_]]
Positions = np.ndarray[Any, np.dtype[np.int64]]
KEY_TYPE = "S16"


def text_keys(texts: Sequence[str]) -> Keys:
    """Content keys (N,) of texts, comparable and sortable: 120 bits and a final 1, as numpy drops trailing zeros."""
    joined = b"".join(hashlib.blake2b(t.encode("utf-8"), digest_size=15).digest() + b"\x01" for t in texts)
    return np.frombuffer(joined, dtype=KEY_TYPE)


class VectorStore:
    """All shards of one teacher.

    A shard is `<name>.keys` (N keys) and `<name>.npy` (N, E); the keys file is renamed into place last, so a
    shard with keys is whole. Jobs that run side by side may write the same texts twice, never half a shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._shards: list[Vectors] = []
        self.reload()

    def reload(self) -> None:
        """Read the keys of all shards; vectors stay on disk, memory-mapped."""
        key_parts: list[Keys] = []
        self._shards = []
        for path in sorted(self.folder.glob("*.keys")):
            keys = np.frombuffer(path.read_bytes(), dtype=KEY_TYPE)
            vectors = np.load(path.with_suffix(".npy"), mmap_mode="r")
            if len(vectors) != len(keys):
                raise fail(
                    "E320",
                    f"{path}: {len(keys):,} keys but {len(vectors):,} vectors",
                    remedy=f"delete {path} and {path.with_suffix('.npy')}; they are computed again",
                )
            key_parts.append(keys)
            self._shards.append(vectors)
        sizes = [len(k) for k in key_parts]
        keys = np.concatenate(key_parts) if key_parts else np.empty(0, dtype=KEY_TYPE)
        order = np.argsort(keys, kind="stable")
        self._sorted_keys = keys[order]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row_of = np.concatenate([np.arange(n) for n in [0, *sizes]])[order]

    def positions(self, texts: Sequence[str]) -> Positions:
        """Position of each text among the sorted rows, -1 where it is missing, (N,)."""
        wanted = text_keys(texts)
        if not len(self._sorted_keys):
            return np.full(len(wanted), -1)
        found = np.searchsorted(self._sorted_keys, wanted)
        found[found == len(self._sorted_keys)] = 0
        return np.where(self._sorted_keys[found] == wanted, found, -1)

    def rows(self, positions: Positions) -> Tensor:
        """Vectors at positions that `positions` returned, float32 (N, E)."""
        shards, rows = self._shard_of[positions], self._row_of[positions]
        result = np.empty((len(positions), self.dimension), dtype=np.float32)
        for shard in np.unique(shards):
            wanted = shards == shard
            result[wanted] = self._shards[shard][rows[wanted]]
        return torch.from_numpy(result)

    @property
    def dimension(self) -> int:
        """E; the store must not be empty."""
        return int(self._shards[0].shape[1])

    def append(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Write one shard; call `reload` when all are written."""
        keys = text_keys(texts).tobytes()
        name = hashlib.blake2b(keys, digest_size=12).hexdigest()
        write_array(self.folder / f"{name}.npy", vectors.numpy())
        # The keys last: a shard is there once they are.
        write_bytes(self.folder / f"{name}.keys", keys)


def unit_norm(vectors: Tensor) -> bool:
    """Whether vectors (N, E) all have norm 1 within rounding."""
    return bool(((vectors.norm(dim=1) - 1).abs() < 1e-2).all())
