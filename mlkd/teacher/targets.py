"""Teacher targets: every distinct text is encoded once, and never inside the training loop.

Shapes: N texts, E dimensions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, fail
from mlkd.models.folder import folder_sha256, load_encoder
from mlkd.models.locate import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.runtime.devices import Hardware, autocast_type, place
from mlkd.teacher.reduction import ReducedSpace, TeacherReduction
from mlkd.teacher.store import Positions, VectorStore

log = logging.getLogger("mlkd")
SHARD_TEXTS = 4096
CHECKED_TEXTS = 4


@dataclass(kw_only=True, slots=True)
class Teacher:
    """The frozen encoder whose vectors are the targets.

    Args:
        model: hub id, folder, or `package:<module>`; see `mlkd.models.locate.locate_model`.
        pooling: None takes the folder's own (mean for a plain transformers folder).
        max_length: in tokens; None takes the folder's own.
        revision: of a hub id.
        trust_remote_code: run Python code that the model brings.
        reduction: to fewer dimensions, for a student of fewer dimensions; see TeacherReduction.
    """

    model: str = ""
    pooling: Pooling | None = None
    max_length: int | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    reduction: TeacherReduction = field(default_factory=TeacherReduction)

    def __post_init__(self) -> None:
        problems = []
        if not self.model:
            problems.append(
                Problem("E205", "is required and not set. Example: teacher=minilm or teacher.model=<folder>", "model")
            )
        if self.max_length is not None and self.max_length < 4:
            problems.append(Problem("E204", f"must be >= 4 (got {self.max_length})", "max_length"))
        if problems:
            raise MlkdError(problems)

    def locate(self) -> Path:
        """The teacher's folder; raises MlkdError (E4xx, E502) where there is none."""
        return locate_model(self.model, revision=self.revision)

    def load(self, hardware: Hardware, device: torch.device) -> SentenceEncoder:
        """The teacher, ready to encode on `device`."""
        encoder = load_encoder(
            self.model,
            pooling=self.pooling,
            max_length=self.max_length,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )
        encoder.precision = autocast_type(hardware.teacher_precision, device)
        encoder.encode_tokens = hardware.forward_tokens(device)
        place(encoder.body, device, encoder.precision)
        encoder.to(device)
        encoder.requires_grad_(False)
        return encoder

    def fingerprint(self, precision: torch.dtype | None) -> str:
        """Names everything the vectors depend on but the texts: weights, tokenizer, pooling, length, precision."""
        parts = [folder_sha256(self.locate()), str(self.pooling), str(self.max_length), str(precision)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]


class LazyTeacher:
    """An encoder whose weights are opened on first use: a warm cache needs none."""

    def __init__(self, load: Callable[[], SentenceEncoder]) -> None:
        self._load = load
        self._encoder: SentenceEncoder | None = None

    @property
    def encoder(self) -> SentenceEncoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, E) on the CPU."""
        return self.encoder.encode(texts)


class TeacherTargets:
    """Vectors of all training texts, memory-mapped.

    Args:
        folder: of this teacher in the cache, named by its fingerprint.
        teacher: encodes what the cache lacks.

    Attributes:
        reduction: applied to every vector that is read; None for the teacher as it is. What is cached is not reduced.
    """

    def __init__(self, folder: Path, teacher: LazyTeacher) -> None:
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
