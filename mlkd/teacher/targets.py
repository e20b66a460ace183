"""Teacher targets: every distinct text is encoded once, and never inside the training loop.

Shapes: N texts, E dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mlkd.errors import fail
from mlkd.models.spec import LazyEncoder
from mlkd.teacher.reduction import ReducedSpace
from mlkd.teacher.vector_store import Positions, VectorStore

SHARD_TEXTS = 4096
CHECKED_TEXTS = 4


class TeacherTargets:
    """Vectors of all training texts, memory-mapped.

    Args:
        folder: of this teacher in the cache, named by its fingerprint.
        teacher: encodes what the cache lacks.

    Attributes:
        reduction: applied to every vector that is read; None for the teacher as it is. What is cached is not reduced.
    """

    def __init__(self, folder: Path, teacher: LazyEncoder) -> None:
        self.store = VectorStore(folder)
        self.teacher = teacher
        self.reduction: ReducedSpace | None = None

    def ensure(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Positions:
        """Encode the texts that the cache lacks, shard by shard; a killed run loses at most one shard.

        Args:
            texts: distinct texts.
            progress: called with (encoded, to encode) after each shard.

        Returns:
            (N,) positions for `rows`.

        Raises:
            MlkdError: E321 where the teacher gives NaN or infinite vectors, or the cache disagrees with the teacher.
        """
        positions = self.store.positions(texts)
        missing = [t for t, p in zip(texts, positions, strict=True) if p < 0]
        if missing:
            # Texts of like length share a shard, which keeps padding low and shards even in time.
            missing.sort(key=lambda t: (len(t), t))
            for i in range(0, len(missing), SHARD_TEXTS):
                shard = missing[i : i + SHARD_TEXTS]
                self.store.append(shard, _finite(self.teacher.encode(shard), shard))
                if progress is not None:
                    progress(min(i + SHARD_TEXTS, len(missing)), len(missing))
            self.store.reload()
            positions = self.store.positions(texts)
        elif texts:
            self._check_sample(texts, positions)
        return positions

    def _check_sample(self, texts: Sequence[str], positions: Positions) -> None:
        step = max(1, len(texts) // CHECKED_TEXTS)
        sample = list(texts[::step][:CHECKED_TEXTS])
        cached = self.store.rows(positions[::step][:CHECKED_TEXTS])
        difference = float((self.teacher.encode(sample) - cached).abs().max())
        # bf16 teachers differ by rounding between batch shapes; a wrong row differs by far more.
        if not difference < 0.02 * max(1.0, float(cached.abs().max())):
            raise fail(
                "E321",
                f"cached teacher vectors differ from the teacher's by {difference:.3g}",
                where=str(self.store.folder),
                remedy="delete this folder; the vectors are computed again",
            )

    def rows(self, positions: Positions) -> Tensor:
        """float32 (N, E) on the CPU."""
        vectors = self.store.rows(positions)
        return vectors if self.reduction is None else self.reduction(vectors)

    @property
    def dimension(self) -> int:
        """E, after any reduction; the store must not be empty."""
        return self.store.dimension if self.reduction is None else self.reduction.dimension


def _finite(vectors: Tensor, texts: Sequence[str]) -> Tensor:
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        examples = ", ".join(repr(texts[i][:60]) for i in bad[:3])
        raise fail(
            "E321",
            f"the teacher gives NaN or infinite vectors for {len(bad):,} of {len(texts):,} texts, e.g. {examples}",
            remedy="set hardware.teacher_precision=fp32, or remove these texts",
        )
    return vectors
