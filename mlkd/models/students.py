"""What a student is, and students that start as a pretrained encoder: a multilingual one, or the teacher itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mlkd.data.training import TrainingPairs
from mlkd.errors import MlkdError, Problem
from mlkd.models.adapters import Adapters
from mlkd.models.folder import (
    folder_dimension,
    load_encoder,
    load_tokenizer,
    model_max_length,
    transformer_config,
    transformer_dimension,
)
from mlkd.models.layers import check_layers, keep_layers, layer_problems, set_dropout
from mlkd.models.locate import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import Dense, SentenceEncoder, TextSettings
from mlkd.models.trimming import Trimming


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
        problems = []
        if self.max_length < 4:
            problems.append(Problem("E204", f"must be >= 4 (got {self.max_length})", "max_length"))
        if self.dense_dim is not None and self.dense_dim < 1:
            problems.append(Problem("E204", f"must be >= 1 (got {self.dense_dim})", "dense_dim"))
        if self.dropout is not None and not 0 <= self.dropout < 1:
            problems.append(Problem("E204", f"must be in [0, 1) (got {self.dropout})", "dropout"))
        return problems

    @abstractmethod
    def take_teacher(self, model: str, revision: str | None) -> None:
        """Fill in what is taken from the run's teacher and was left empty."""

    @abstractmethod
    def check_files(self) -> None:
        """Raise MlkdError (E4xx) where a file this student needs is missing; opens no weights."""

    def open_tokenizer(self) -> Any:
        """The tokenizer taken from another model; None where one is trained on the run's corpus."""
        return None

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """Dimension before any dense layer; reads at most a config.json."""

    @property
    def dimension(self) -> int:
        """Dimension of the student's vectors."""
        return self.dense_dim or self.hidden_size

    @abstractmethod
    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        """The student before its first step.

        Args:
            corpus: the run's texts and where what is derived from them is kept, for students with their own vocabulary.
            normalize: used where the `normalize` field is None.
            seed: of fresh weights; the same seed gives the same weights.
        """

    def assemble(self, body: Any, tokenizer: Any, *, normalize: bool, max_length: int) -> SentenceEncoder:
        denses = [] if self.dense_dim is None else [Dense(body.config.hidden_size, self.dense_dim)]
        return SentenceEncoder(
            body,
            tokenizer,
            pooling=self.pooling or Pooling.mean,
            denses=denses,
            normalize=normalize if self.normalize is None else self.normalize,
            text=TextSettings(max_length=max_length),
        )


@dataclass(kw_only=True, slots=True)
class PretrainedStudent(Student):
    """A pretrained encoder, hub id or local folder; it starts as it is, with its own pooling, dense layers and prompt.

    Args:
        model: see `mlkd.models.locate.locate_model`; empty takes the run's teacher, so that the student is its copy.
        revision: of a hub id.
        trust_remote_code: run Python code that the model brings.
        layers: which of its transformer layers, numbered from 0, rising; None keeps all.
        trimming: of its vocabulary.
        adapters: train an adapter and nothing else.
    """

    model: str = ""
    revision: str | None = None
    trust_remote_code: bool = False
    layers: list[int] | None = None
    trimming: Trimming = field(default_factory=Trimming)
    adapters: Adapters = field(default_factory=Adapters)

    def take_teacher(self, model: str, revision: str | None) -> None:
        if not self.model:
            self.model, self.revision = model, revision

    def range_problems(self) -> list[Problem]:
        return Student.range_problems(self) + ([] if self.layers is None else layer_problems(self.layers))

    def check_files(self) -> None:
        problems: list[Problem] = []
        for check in (self._check_model, self.trimming.check_files, self.adapters.check_installed):
            try:
                check()
            except MlkdError as error:
                problems.extend(error.problems)
        if problems:
            raise MlkdError(problems)

    def _check_model(self) -> None:
        folder = locate_model(self.model, revision=self.revision)
        if self.layers is not None:
            check_layers(transformer_config(folder), self.layers, self.model)

    def open_tokenizer(self) -> Any:
        return load_tokenizer(self.model, revision=self.revision, trust_remote_code=self.trust_remote_code)

    @property
    def hidden_size(self) -> int:
        return transformer_dimension(locate_model(self.model, revision=self.revision))

    @property
    def dimension(self) -> int:
        return self.dense_dim or folder_dimension(locate_model(self.model, revision=self.revision))

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        start = load_encoder(
            self.model, pooling=self.pooling, revision=self.revision, trust_remote_code=self.trust_remote_code
        )
        body: Any = start.body
        tokenizer = start.tokenizer
        if self.layers is not None:
            keep_layers(body, self.layers)
        if self.trimming.enabled:
            texts, held_out = ([start.text.prompt + t for t in part] for part in (corpus.pairs.texts, corpus.held_out))
            tokenizer = self.trimming.apply(body, tokenizer, texts, held_out, lower_case=start.text.lower_case)
        if self.dropout is not None:
            set_dropout(body, self.dropout)
        torch.manual_seed(seed)
        if self.adapters.enabled:
            start.requires_grad_(False)
            self.adapters.attach(body, self.model)
        max_length = min(self.max_length, model_max_length(body, tokenizer))
        encoder = self.assemble(body, tokenizer, normalize=normalize, max_length=max_length)
        encoder.pooling = start.pooling
        encoder.text = replace(start.text, max_length=max_length)
        if self.dense_dim is None:
            encoder.denses = start.denses
        return encoder
