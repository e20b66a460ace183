"""Students of the teacher's own layers, under a multilingual vocabulary aligned with the teacher's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import Problem, fail, out_of_range
from mlkd.models.hub import locate_model
from mlkd.models.model_folder import transformer_config, transformer_dimension
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, model_max_length
from mlkd.models.students.base import Student, StudentCorpus
from mlkd.models.students.layer_selection import check_layers, layer_problems, select_layers, set_dropout
from mlkd.models.students.vocabulary import Vocabulary
from mlkd.models.students.vocabulary_alignment import aligned_embeddings
from mlkd.models.tokenization import TokenIds, tokenize_texts


@dataclass(kw_only=True, slots=True)
class TeacherLayersStudent(Student):
    """Some of the teacher's own layers, under a multilingual vocabulary aligned with the teacher's.

    The token embeddings start at the teacher's through the word alignment of the parallel corpus (see
    `mlkd.models.students.vocabulary_alignment`), so that the student reads translations before its first step.

    Args:
        model: a BERT-like model; empty takes the run's teacher.
        keep_layers: which of its layers, counted from 0, in order; they are copied.
        vocabulary: trained on the run's corpus.
        alignment_pairs: at most this many sentence pairs, evenly spaced over the corpus, are aligned.
        revision: of a hub id.
    """

    model: str = ""
    keep_layers: list[int] = field(default_factory=lambda: [0, 2, 5])
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    alignment_pairs: int = 300_000
    revision: str | None = None

    def take_teacher(self, model: str, revision: str | None) -> None:
        if not self.model:
            self.model, self.revision = model, revision

    def range_problems(self) -> list[Problem]:
        return [
            *Student.range_problems(self),
            *layer_problems(self.keep_layers),
            *out_of_range(self, "alignment_pairs", ge=1),
        ]

    def check_files(self) -> None:
        folder = locate_model(self.model, revision=self.revision)
        config = transformer_config(folder)
        if config.get("model_type") != "bert":
            raise fail(
                "E407",
                f"student.keep_layers needs a BERT-like model; '{self.model}' is of type '{config.get('model_type')}'",
                remedy="choose another teacher or another student, e.g. student=thin_deep",
            )
        check_layers(config, self.keep_layers, self.model)

    def read_hidden_size(self) -> int:
        return transformer_dimension(locate_model(self.model, revision=self.revision))

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        teacher = load_encoder(self.model, revision=self.revision)
        backbone: Any = teacher.backbone
        teacher_tokenizer = teacher.tokenizer
        max_length = min(self.max_length, model_max_length(backbone, teacher_tokenizer))
        tokenizer = self.vocabulary.open_or_train(corpus.cache_dir, corpus.pairs.texts, max_length=max_length)
        embeddings_VH = aligned_embeddings(
            self.token_pairs(corpus.pairs, tokenizer),
            tokenizer,
            teacher_tokenizer,
            backbone.get_input_embeddings().weight.detach(),
        )
        embedding = nn.Embedding(len(tokenizer), embeddings_VH.shape[1], padding_idx=tokenizer.pad_token_id)
        embedding.load_state_dict({"weight": embeddings_VH})
        backbone.set_input_embeddings(embedding)
        select_layers(backbone, self.keep_layers)
        backbone.config.vocab_size = len(tokenizer)
        backbone.config.pad_token_id = tokenizer.pad_token_id
        set_dropout(backbone, self.dropout or 0.0)
        torch.manual_seed(seed)
        return self.assemble(backbone, tokenizer, normalize=normalize, max_length=max_length)

    def token_pairs(self, pairs: TrainingPairs, tokenizer: Any) -> list[tuple[TokenIds, TokenIds]]:
        """Token ids of the pairs that are aligned, cut to the maximum length, without control tokens."""
        step = -(-len(pairs.source) // self.alignment_pairs)
        chosen = range(0, len(pairs.source), step)
        texts = sorted({int(pairs.source[i]) for i in chosen} | {int(pairs.target[i]) for i in chosen})
        rows = tokenize_texts(
            tokenizer, [pairs.texts[t] for t in texts], max_length=self.max_length, special_tokens=False
        )
        ids = dict(zip(texts, rows, strict=True))
        return [(ids[int(pairs.source[i])], ids[int(pairs.target[i])]) for i in chosen]
