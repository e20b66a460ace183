"""Students from scratch: a BERT-like encoder of any shape, with its own vocabulary or another model's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mlkd.errors import Problem, out_of_range
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
        num_layers: transformer layers, >= 0; with 0 the student averages token embeddings.
        hidden_size: dimension of the hidden states, divisible by num_attention_heads.
        num_attention_heads: of each layer.
        intermediate_size: inner size of the feed-forward blocks.
        identity_start: residual branches start at zero, so that a deep student starts as its embeddings and learns
            words before it learns order.
        tokenizer: model whose tokenizer (and vocabulary) is used, e.g. LaBSE's; empty trains `vocabulary`.
        vocabulary: trained on the run's corpus where `tokenizer` is empty.
        from_teacher: start at the teacher's weights where shapes allow, see `mlkd.models.students.teacher_weights`.
        teacher_model, teacher_revision: whose weights; empty takes the run's teacher.
    """

    num_layers: int = 12
    hidden_size: int = 384
    num_attention_heads: int = 6
    intermediate_size: int = 1536
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
        problems = [
            *Student.range_problems(self),
            *out_of_range(self, "hidden_size", "num_attention_heads", "intermediate_size", ge=1),
            *out_of_range(self, "num_layers", ge=0),
        ]
        if self.num_attention_heads >= 1 and self.hidden_size % self.num_attention_heads:
            divisors = [n for n in range(1, self.hidden_size + 1) if self.hidden_size % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - self.num_attention_heads))
            what = f"must divide hidden_size={self.hidden_size} (got {self.num_attention_heads}); nearest: {nearest}"
            problems.append(Problem("E204", what, "num_attention_heads"))
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

    def read_hidden_size(self) -> int:
        return self.hidden_size

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        tokenizer = self.open_tokenizer()
        if tokenizer is None:
            tokenizer = self.vocabulary.open_or_train(corpus.cache_dir, corpus.pairs.texts, max_length=self.max_length)
        torch.manual_seed(seed)
        backbone = self.build_body(len(tokenizer), tokenizer.pad_token_id)
        if self.from_teacher:
            teacher = load_encoder(self.teacher_model, revision=self.teacher_revision)
            start_at_teacher(backbone, tokenizer, teacher.backbone, teacher.tokenizer)
        return self.assemble(backbone, tokenizer, normalize=normalize, max_length=self.max_length)

    def build_body(self, num_tokens: int, pad_token_id: int) -> Any:
        """The transformer with fresh weights, a `BertModel` without pooler."""
        from transformers import BertConfig, BertModel

        dropout = self.dropout or 0.0
        config = BertConfig(
            vocab_size=num_tokens,
            pad_token_id=pad_token_id,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            type_vocab_size=1,
        )
        backbone = BertModel(config, add_pooling_layer=False)
        if self.identity_start:
            for layer in backbone.encoder.layer:
                nn.init.zeros_(layer.attention.output.dense.weight)
                nn.init.zeros_(layer.output.dense.weight)
        return backbone
