"""Mined hard negatives: pairs whose source the teacher finds near, but not so near that it may mean the same.

Shapes: P pairs of all languages, S source texts, E teacher dimensions, C candidates, H negatives a pair.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.data.training_pairs import Indices, TrainingPairs
from mlkd.errors import MlkdError, out_of_range
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.runtime.atomic_files import remove_stale, write_array
from mlkd.runtime.hashing import fingerprint

log = logging.getLogger("mlkd")
NONE = -1
BLOCK = 65_536  # pairs whose vectors are in memory at a time
VERSION = 1  # raised where the same settings give other negatives
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class NegativeMiningPairs:
    """Pairs and what the teacher says of their texts.

    Args:
        pairs: of all languages.
        vectors: teacher vectors (N, E) of texts, by their numbers.
        reads_target: whether translations have vectors, from a teacher that understands them.
        key: names what the vectors depend on but the texts.
    """

    pairs: TrainingPairs
    vectors: Callable[[Indices], Tensor]
    reads_target: bool
    key: str

    def similarity(self) -> Floats:
        """Cosine of T(x) and T(y) of each pair, (P,)."""
        blocks = np.array_split(np.arange(len(self.pairs.source)), -(-len(self.pairs.source) // BLOCK))
        parts = [
            F.cosine_similarity(self.vectors(self.pairs.source[rows]), self.vectors(self.pairs.target[rows]))
            for rows in blocks
        ]
        result: Floats = torch.cat(parts).numpy()
        return result


@dataclass(kw_only=True, slots=True)
class NegativeMining:
    """How near a mined negative may come to what it is a negative of.

    A pair's negatives are the pairs of its own language with the nearest other sources, by cosine of teacher vectors,
    nearest first. Left out is what may be a translation: sources nearer than the limit, and pairs whose translation
    also stands beside the pair's own source somewhere in the corpus.

    The limit is the lower one of `max_similarity` and the similarity of the positive less `margin` (NV-Retriever,
    Moreira et al. 2024, TopK-MarginPos). The positive is cos(T(x), T(y)) where the loss has the teacher read
    translations; a teacher of sources alone finds x itself, at 1.

    Args:
        max_similarity: of two sources, in (-1, 1]; sources nearer than that are held for paraphrases.
        margin: at least this much less similar than the positive, >= 0.
        candidates: neighbours looked at for a source; a pair has fewer negatives where more are too near.
    """

    max_similarity: float = 0.9
    margin: float = 0.05
    candidates: int = 32

    def __post_init__(self) -> None:
        problems = [
            *out_of_range(self, "max_similarity", gt=-1, le=1),
            *out_of_range(self, "margin", ge=0),
            *out_of_range(self, "candidates", ge=1),
        ]
        if problems:
            raise MlkdError(problems)

    def open_or_mine(self, cache_dir: Path, known: NegativeMiningPairs, number: int) -> Indices:
        """`mine` from the cache, or mined and put there.

        Args:
            cache_dir: shared by runs; the file is named by pairs, teacher and settings.
            known: see `mine`.
            number: H.
        """
        pairs = known.pairs
        numbers = [hashlib.sha256(a.tobytes()).hexdigest() for a in (pairs.source, pairs.target)]
        settings = f"{VERSION} {self} {number} {known.key} {known.reads_target} {pairs.language_sizes} {numbers}"
        key = hashlib.sha256(f"{settings} {fingerprint(pairs.texts)}".encode()).hexdigest()[:24]
        path = cache_dir / "negatives" / f"{key}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(path.parent)
            write_array(path, self.mine(known, number))
        negatives: Indices = np.load(path, mmap_mode="r")
        found = (np.asarray(negatives) != NONE).sum(axis=1)
        log.info(
            "hard negatives: %.2f of %d a pair; none for %s of %s pairs",
            found.mean(),
            number,
            f"{int((found == 0).sum()):,}",
            f"{len(found):,}",
        )
        return negatives

    def mine(self, known: NegativeMiningPairs, number: int) -> Indices:
        """The nearest allowed pairs of each pair, (P, H), as numbers of pairs, NONE where there are no more.

        Args:
            known: pairs and what the teacher says of them.
            number: H.
        """
        pairs = known.pairs
        limit_P = np.full(len(pairs.source), min(self.max_similarity, 1 - self.margin), dtype=np.float32)
        if known.reads_target:
            limit_P = np.minimum(limit_P, known.similarity() - np.float32(self.margin))
        translations = np.unique(self._both(pairs, pairs.source, pairs.target))
        negatives = np.full((len(pairs.source), number), NONE, dtype=np.int64)
        start = 0
        for size in pairs.language_sizes:
            rows = np.arange(start, start + size)
            near, similarity = self._neighbours(known, rows)
            allowed = (
                (pairs.source[near] != pairs.source[rows][:, None])
                & (similarity <= limit_P[rows][:, None])
                & ~np.isin(self._both(pairs, pairs.source[rows][:, None], pairs.target[near]), translations)
            )
            nearest = np.argsort(~allowed, axis=1, kind="stable")[:, :number]
            found = np.take_along_axis(allowed, nearest, 1)
            negatives[rows, : nearest.shape[1]] = np.where(found, np.take_along_axis(near, nearest, 1), NONE)
            start += size
        return negatives

    def _neighbours(self, known: NegativeMiningPairs, rows: Indices) -> tuple[Indices, Floats]:
        """Pairs among `rows` with the nearest sources, each source once, and their similarities, (rows, C) each."""
        if not len(rows):
            return np.empty((0, 1), dtype=np.int64), np.empty((0, 1), dtype=np.float32)
        sources, first, inverse = np.unique(known.pairs.source[rows], return_index=True, return_inverse=True)
        vectors = known.vectors(sources)
        found = NeighbourSearch().one_way(vectors, vectors, min(self.candidates + 1, len(sources)))
        return rows[first[found.index.numpy()[inverse]]], found.similarity.numpy()[inverse]

    @staticmethod
    def _both(pairs: TrainingPairs, source: Indices, target: Indices) -> Indices:
        """One number for a source text beside a target text."""
        key: Indices = source * len(pairs.texts) + target
        return key
