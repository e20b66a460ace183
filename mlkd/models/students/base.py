"""Base of students: what each one builds, declares and checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import Dense, SentenceEncoder, TextSettings


@dataclass(frozen=True, slots=True)
class StudentCorpus:
    """What a student may be built from.

    Args:
        pairs: the run's training pairs.
        cache_dir: where vocabularies trained on them go.
        held_out: texts of the dev split, to measure a vocabulary on.
    """

    pairs: TrainingPairs
    cache_dir: Path
    held_out: Sequence[str] = ()


@dataclass(kw_only=True, slots=True)
class Student(ABC):
    """What is trained.

    Args:
        pooling: over token vectors; None takes a pretrained folder's own, and mean where there is none.
        dense_dim: dimension of a trained dense layer after pooling, kept at inference; None for no such layer. A loss
            that compares student and teacher vectors directly needs the teacher's dimension here if hidden differs.
        normalize: unit-norm vectors; None means as the teacher's vectors are.
        max_length: tokens, special tokens included.
        dropout: in the transformer while training; None keeps a pretrained model's own.
    """

    pooling: Pooling | None = None
    dense_dim: int | None = None
    normalize: bool | None = None
    max_length: int = 128
    dropout: float | None = None

    def __post_init__(self) -> None:
        problems = self.range_problems()
        if problems:
            raise MlkdError(problems)

    def range_problems(self) -> list[Problem]:
        return [
            *out_of_range(self, "max_length", ge=4),
            *out_of_range(self, "dense_dim", ge=1),
            *out_of_range(self, "dropout", ge=0, lt=1),
        ]

    @abstractmethod
    def take_teacher(self, model: str, revision: str | None) -> None:
        """Fill in what is taken from the run's teacher and was left empty."""

    @abstractmethod
    def check_files(self) -> None:
        """Raise MlkdError (E4xx) where a file this student needs is missing; opens no weights."""

    def open_tokenizer(self) -> Any:
        """The tokenizer taken from another model; None where one is trained on the run's corpus."""
        return None

    @abstractmethod
    def read_hidden_size(self) -> int:
        """Dimension before any dense layer; reads at most a config.json."""

    def read_dimension(self) -> int:
        """Dimension of the student's vectors."""
        return self.dense_dim or self.read_hidden_size()

    @abstractmethod
    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        """The student before its first step.

        Args:
            corpus: the run's texts and where what is derived from them is kept, for students with their own vocabulary.
            normalize: used where the `normalize` field is None.
            seed: of fresh weights; the same seed gives the same weights.
        """

    def assemble(self, backbone: Any, tokenizer: Any, *, normalize: bool, max_length: int) -> SentenceEncoder:
        denses = [] if self.dense_dim is None else [Dense(backbone.config.hidden_size, self.dense_dim)]
        return SentenceEncoder(
            backbone,
            tokenizer,
            pooling=self.pooling or Pooling.mean,
            denses=denses,
            normalize=normalize if self.normalize is None else self.normalize,
            text=TextSettings(max_length=max_length),
        )
