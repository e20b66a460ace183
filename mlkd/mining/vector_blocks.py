"""Vectors of one side in files of a fixed number of sentences each, so that who encodes which changes nothing.

Shapes: N sentences, B of a block, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlkd.errors import fail
from mlkd.runtime.atomic_files import write_array

# Vectors depend on the sentences they are encoded with, by rounding: the size of a block must not depend on who works.
BLOCK_SENTENCES = 16_384

Encode = Callable[[Sequence[str]], Tensor]


class VectorBlocks:
    """The vectors of `texts`, memory-mapped; a block's file is named by its text and appears whole or not at all.

    Args:
        texts: of one side, in order.
        folder: of one encoder in one precision; other corpora may share it.
    """

    def __init__(self, texts: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.texts = texts
        starts = range(0, len(texts), BLOCK_SENTENCES)
        self.names = [_text_hash(texts[start : start + BLOCK_SENTENCES]) for start in starts]
        self._paths = [folder / f"{name}.npy" for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def missing(self) -> list[int]:
        """Blocks without vectors."""
        return [block for block, path in enumerate(self._paths) if not path.is_file()]

    def encode(self, block: int, encode: Encode) -> int:
        """Encode one block and write its file; returns its number of sentences.

        Raises:
            MlkdError: E601 where a vector holds NaN or infinity.
        """
        texts = self.texts[block * BLOCK_SENTENCES : (block + 1) * BLOCK_SENTENCES]
        vectors_BD = encode(texts).detach().float().cpu()
        bad = (~torch.isfinite(vectors_BD).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            what = f"{len(bad):,} of {len(texts):,} vectors hold NaN or infinity, first for {texts[bad[0]][:60]!r}"
            raise fail("E601", what, remedy="set hardware.precision=fp32, or look at the run that made this encoder")
        write_array(self._paths[block], vectors_BD.numpy())
        return len(texts)

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D) float32, of blocks that are not missing."""
        parts = []
        while start < stop:
            block, first = divmod(start, BLOCK_SENTENCES)
            last = min(first + stop - start, BLOCK_SENTENCES)
            parts.append(np.asarray(self._open(block)[first:last]))
            start += last - first
        return torch.from_numpy(np.concatenate(parts))

    def _open(self, block: int) -> NDArray[np.float32]:
        vectors = read_array(self._paths[block])
        expected = min(BLOCK_SENTENCES, len(self.texts) - block * BLOCK_SENTENCES)
        if len(vectors) != expected:
            raise damaged(self._paths[block], f"{len(vectors):,} vectors of {expected:,} sentences")
        return vectors


def read_array(path: Path) -> NDArray[Any]:
    """A memory-mapped array.

    Raises:
        MlkdError: E320 where the file is damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, str(error)) from error
    return array


def damaged(path: Path, why: str) -> Exception:
    return fail("E320", f"{path}: {why}", remedy="delete this file; the same command computes it again")


def _text_hash(texts: Sequence[str]) -> str:
    # A sentence holds no line end, so that the joined text tells where each one ends.
    return hashlib.sha256("\n".join(texts).encode("utf-8", errors="surrogatepass")).hexdigest()[:32]
