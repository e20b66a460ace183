"""The teacher: a frozen encoder, opened when its vectors are first missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem
from mlkd.models.hub import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder
from mlkd.runtime.devices import place
from mlkd.teacher.reduction import TeacherReduction


@dataclass(kw_only=True, slots=True)
class Teacher:
    """The frozen encoder whose vectors are the targets.

    Args:
        model: hub id, folder, or `package:<module>`; see `mlkd.models.hub.locate_model`.
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

    def load(
        self, folder: Path, *, device: torch.device, precision: torch.dtype | None, max_tokens: int
    ) -> SentenceEncoder:
        """The teacher in `folder`, ready to encode on `device`; see PreflightResult for the rest."""
        encoder = load_encoder(
            str(folder),
            pooling=self.pooling,
            max_length=self.max_length,
            trust_remote_code=self.trust_remote_code,
        )
        encoder.precision = precision
        encoder.encode_tokens = max_tokens
        place(encoder.body, device, encoder.precision)
        encoder.to(device)
        encoder.requires_grad_(False)
        return encoder

    def fingerprint(self, sha256: str, precision: torch.dtype | None) -> str:
        """Names everything the vectors depend on but the texts: weights, tokenizer, pooling, length, precision.

        Args:
            sha256: of the teacher's folder.
            precision: autocast type of its passes.
        """
        parts = [sha256, str(self.pooling), str(self.max_length), str(precision)]
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
