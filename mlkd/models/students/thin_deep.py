"""Students from scratch: a BERT-like encoder of any shape, with its own vocabulary or another model's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mlkd.errors import Problem
from mlkd.models.hub import locate_model
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, load_tokenizer
from mlkd.models.students.base import Student, StudentCorpus
from mlkd.models.students.teacher_weights import start_at_teacher
from mlkd.models.students.vocabulary import Vocabulary


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
        from_teacher: start at the teacher's weights where shapes allow, see `mlkd.models.students.teacher_weights`.
        teacher_model, teacher_revision: whose weights; empty takes the run's teacher.
    """

    layers: int = 12
    hidden: int = 384
    heads: int = 6
    ffn: int = 1536
    identity_start: bool = False
    tokenizer: str = ""
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    from_teacher: bool = False
    teacher_model: str = ""
    teacher_revision: str | None = None

    def take_teacher(self, model: str, revision: str | None) -> None:
        if self.from_teacher and not self.teacher_model:
            self.teacher_model, self.teacher_revision = model, revision

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
        if self.from_teacher and self.identity_start:
            problems.append(Problem("E209", "set only one of identity_start and from_teacher", "from_teacher"))
        return problems

    def check_files(self) -> None:
        if self.tokenizer:
            locate_model(self.tokenizer)
        if self.from_teacher:
            locate_model(self.teacher_model, revision=self.teacher_revision)

    def open_tokenizer(self) -> Any:
        return load_tokenizer(self.tokenizer) if self.tokenizer else None

    @property
    def hidden_size(self) -> int:
        return self.hidden

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        tokenizer = self.open_tokenizer()
        if tokenizer is None:
            tokenizer = self.vocabulary.open_or_train(corpus.cache_dir, corpus.pairs.texts, max_length=self.max_length)
        torch.manual_seed(seed)
        body = self.build_body(len(tokenizer), tokenizer.pad_token_id)
        if self.from_teacher:
            teacher = load_encoder(self.teacher_model, revision=self.teacher_revision)
            start_at_teacher(body, tokenizer, teacher.body, teacher.tokenizer)
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
