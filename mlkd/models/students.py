"""Students: a pretrained multilingual encoder, or a thin-deep one built from a config with its own vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mlkd.data.training import TrainingPairs
from mlkd.errors import MlkdError, Problem, fail
from mlkd.models.alignment import aligned_embeddings
from mlkd.models.folder import load_transformer, model_max_length, transformer_config, transformer_dimension
from mlkd.models.locate import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import Dense, SentenceEncoder, TextSettings, TokenIds
from mlkd.models.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class StudentCorpus:
    """The run's training pairs, and the cache that vocabularies trained on them go to."""

    pairs: TrainingPairs
    cache_dir: Path


@dataclass(kw_only=True, slots=True)
class Student(ABC):
    """What is trained.

    Args:
        pooling: over token vectors.
        dense_dim: dimension of a trained dense layer after pooling, kept at inference; None for no such layer. A loss
            that compares student and teacher vectors directly needs the teacher's dimension here if hidden differs.
        normalize: unit-norm vectors; None means as the teacher's vectors are.
        max_length: tokens, special tokens included.
        dropout: in the transformer while training; None keeps a pretrained model's own.
    """

    pooling: Pooling = Pooling.mean
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
    def check_files(self) -> None:
        """Raise MlkdError (E4xx) where a file this student needs is missing; opens no weights."""

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
            pooling=self.pooling,
            denses=denses,
            normalize=normalize if self.normalize is None else self.normalize,
            text=TextSettings(max_length=max_length),
        )


@dataclass(kw_only=True, slots=True)
class PretrainedStudent(Student):
    """A pretrained encoder: hub id or local folder.

    Args:
        model: see `mlkd.models.locate.locate_model`.
        revision: of a hub id.
        trust_remote_code: run Python code that the model brings.
    """

    model: str = ""
    revision: str | None = None
    trust_remote_code: bool = False

    def range_problems(self) -> list[Problem]:
        problems = Student.range_problems(self)
        if not self.model:
            problems.append(
                Problem("E205", "is required and not set. Example: student.model=xlm-roberta-base", "model")
            )
        return problems

    def check_files(self) -> None:
        locate_model(self.model, revision=self.revision)

    @property
    def hidden_size(self) -> int:
        return transformer_dimension(locate_model(self.model, revision=self.revision))

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        folder = locate_model(self.model, revision=self.revision)
        body, tokenizer = load_transformer(folder, trust_remote_code=self.trust_remote_code)
        if self.dropout is not None:
            set_dropout(body, self.dropout)
        torch.manual_seed(seed)
        max_length = min(self.max_length, model_max_length(body, tokenizer))
        return self.assemble(body, tokenizer, normalize=normalize, max_length=max_length)


@dataclass(kw_only=True, slots=True)
class ThinDeepStudent(Student):
    """A BERT-like encoder of any shape, from scratch, with its own vocabulary.

    LEALLA (Mao & Nakagawa 2023, Table 1) uses 24 layers with hidden 128, 192 and 256 and CLS pooling.

    Args:
        layers: transformer layers, >= 0; with 0 the student averages token embeddings.
        hidden: hidden size, divisible by heads.
        heads: attention heads.
        ffn: inner size of the feed-forward blocks.
        identity_start: residual branches start at zero, so that a deep student starts as its embeddings and learns
            words before it learns order.
        tokenizer: model whose tokenizer (and vocabulary) is used, e.g. LaBSE's; empty trains `vocabulary`.
        vocabulary: trained on the run's corpus where `tokenizer` is empty.
    """

    layers: int = 12
    hidden: int = 384
    heads: int = 6
    ffn: int = 1536
    identity_start: bool = False
    tokenizer: str = ""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def range_problems(self) -> list[Problem]:
        problems = Student.range_problems(self)
        for name in ("hidden", "heads", "ffn"):
            if getattr(self, name) < 1:
                problems.append(Problem("E204", f"must be >= 1 (got {getattr(self, name)})", name))
        if self.layers < 0:
            problems.append(Problem("E204", f"must be >= 0 (got {self.layers})", "layers"))
        if self.heads >= 1 and self.hidden % self.heads:
            divisors = [n for n in range(1, self.hidden + 1) if self.hidden % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - self.heads))
            problems.append(
                Problem("E204", f"must divide hidden={self.hidden} (got {self.heads}); nearest: {nearest}", "heads")
            )
        return problems

    def check_files(self) -> None:
        if self.tokenizer:
            locate_model(self.tokenizer)

    @property
    def hidden_size(self) -> int:
        return self.hidden

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        from transformers import AutoTokenizer

        if self.tokenizer:
            tokenizer = AutoTokenizer.from_pretrained(locate_model(self.tokenizer), use_fast=True)
        else:
            tokenizer = self.vocabulary.open_or_train(corpus.cache_dir, corpus.pairs.texts, max_length=self.max_length)
        torch.manual_seed(seed)
        body = self.build_body(len(tokenizer), tokenizer.pad_token_id)
        return self.assemble(body, tokenizer, normalize=normalize, max_length=self.max_length)

    def build_body(self, num_tokens: int, pad_token_id: int) -> Any:
        """The transformer with fresh weights, a `BertModel` without pooler."""
        from transformers import BertConfig, BertModel

        dropout = self.dropout or 0.0
        config = BertConfig(
            vocab_size=num_tokens,
            pad_token_id=pad_token_id,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.ffn,
            max_position_embeddings=self.max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            type_vocab_size=1,
        )
        body = BertModel(config, add_pooling_layer=False)
        if self.identity_start:
            for layer in body.encoder.layer:
                nn.init.zeros_(layer.attention.output.dense.weight)
                nn.init.zeros_(layer.output.dense.weight)
        return body


@dataclass(kw_only=True, slots=True)
class TeacherLayersStudent(Student):
    """Some of the teacher's own layers, under a multilingual vocabulary aligned with the teacher's.

    The token embeddings start at the teacher's through the word alignment of the parallel corpus (see
    `mlkd.models.alignment`), so that the student reads translations before its first step.

    Args:
        model: a BERT-like model; empty takes the run's teacher.
        layers: which of its layers, counted from 0, in order; they are copied.
        vocabulary: trained on the run's corpus.
        alignment_pairs: at most this many sentence pairs, evenly spaced over the corpus, are aligned.
        revision: of a hub id.
    """

    model: str = ""
    layers: list[int] = field(default_factory=lambda: [0, 2, 5])
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    alignment_pairs: int = 300_000
    revision: str | None = None

    def range_problems(self) -> list[Problem]:
        problems = Student.range_problems(self)
        if not self.layers or min(self.layers) < 0 or list(self.layers) != sorted(set(self.layers)):
            what = f"must name rising layer numbers from 0 (got {list(self.layers)})"
            problems.append(Problem("E204", what, "layers"))
        if self.alignment_pairs < 1:
            problems.append(Problem("E204", f"must be >= 1 (got {self.alignment_pairs})", "alignment_pairs"))
        return problems

    def check_files(self) -> None:
        folder = locate_model(self.model, revision=self.revision)
        config = transformer_config(folder)
        if config.get("model_type") != "bert":
            raise fail(
                "E407",
                f"student.layers needs a BERT-like model; '{self.model}' is of type '{config.get('model_type')}'",
                remedy="choose another teacher or another student, e.g. student=thin_deep",
            )
        if max(self.layers) >= config["num_hidden_layers"]:
            raise fail(
                "E204",
                f"must be below {config['num_hidden_layers']}, the layers of '{self.model}' (got {list(self.layers)})",
                where="student.layers",
            )

    @property
    def hidden_size(self) -> int:
        return transformer_dimension(locate_model(self.model, revision=self.revision))

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        body, teacher_tokenizer = load_transformer(locate_model(self.model, revision=self.revision))
        max_length = min(self.max_length, model_max_length(body, teacher_tokenizer))
        tokenizer = self.vocabulary.open_or_train(corpus.cache_dir, corpus.pairs.texts, max_length=max_length)
        embeddings_VH = aligned_embeddings(
            self.token_pairs(corpus.pairs, tokenizer),
            tokenizer,
            teacher_tokenizer,
            body.get_input_embeddings().weight.detach(),
        )
        embedding = nn.Embedding(len(tokenizer), embeddings_VH.shape[1], padding_idx=tokenizer.pad_token_id)
        embedding.load_state_dict({"weight": embeddings_VH})
        body.set_input_embeddings(embedding)
        body.encoder.layer = nn.ModuleList([body.encoder.layer[i] for i in self.layers])
        body.config.num_hidden_layers = len(self.layers)
        body.config.vocab_size = len(tokenizer)
        body.config.pad_token_id = tokenizer.pad_token_id
        set_dropout(body, self.dropout or 0.0)
        torch.manual_seed(seed)
        return self.assemble(body, tokenizer, normalize=normalize, max_length=max_length)

    def token_pairs(self, pairs: TrainingPairs, tokenizer: Any) -> list[tuple[TokenIds, TokenIds]]:
        """Token ids of the pairs that are aligned, cut to the maximum length, without control tokens."""
        step = -(-len(pairs.source) // self.alignment_pairs)
        chosen = range(0, len(pairs.source), step)
        texts = sorted({int(pairs.source[i]) for i in chosen} | {int(pairs.target[i]) for i in chosen})
        rows = tokenizer(
            [pairs.texts[t] for t in texts],
            add_special_tokens=False,
            truncation=True,
            max_length=self.max_length,
            split_special_tokens=True,
        )["input_ids"]
        ids = {t: np.asarray(row, dtype=np.int32) for t, row in zip(texts, rows, strict=True)}
        return [(ids[int(pairs.source[i])], ids[int(pairs.target[i])]) for i in chosen]


def set_dropout(body: nn.Module, probability: float) -> None:
    """Set every dropout of a pretrained transformer, in its layers and in what its attention reads at run time."""
    for module in body.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, probability)
