"""Students that start as a pretrained encoder: a multilingual one, or the teacher itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mlkd.errors import MlkdError, Problem
from mlkd.models.adapters import Adapters
from mlkd.models.hub import locate_model
from mlkd.models.model_folder import folder_dimension, transformer_config, transformer_dimension
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, load_tokenizer, model_max_length
from mlkd.models.students.base import Student, StudentCorpus
from mlkd.models.students.layer_selection import check_layers, layer_problems, select_layers, set_dropout
from mlkd.models.students.trimming import Trimming


@dataclass(kw_only=True, slots=True)
class PretrainedStudent(Student):
    """A pretrained encoder, hub id or local folder; it starts as it is, with its own pooling, dense layers and prompt.

    Args:
        model: see `mlkd.models.hub.locate_model`; empty takes the run's teacher, so that the student is its copy.
        revision: of a hub id.
        prompt: put before each text; None takes the model's default prompt.
        trust_remote_code: run Python code that the model brings.
        keep_layers: which of its transformer layers, numbered from 0, rising; None keeps all.
        trimming: of its vocabulary.
        adapters: train an adapter and nothing else.
    """

    model: str = ""
    revision: str | None = None
    prompt: str | None = None
    trust_remote_code: bool = False
    keep_layers: list[int] | None = None
    trimming: Trimming = field(default_factory=Trimming)
    adapters: Adapters = field(default_factory=Adapters)

    def take_teacher(self, model: str, revision: str | None) -> None:
        if not self.model:
            self.model, self.revision = model, revision

    def range_problems(self) -> list[Problem]:
        return Student.range_problems(self) + ([] if self.keep_layers is None else layer_problems(self.keep_layers))

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
        if self.keep_layers is not None:
            check_layers(transformer_config(folder), self.keep_layers, self.model)

    def open_tokenizer(self) -> Any:
        return load_tokenizer(self.model, revision=self.revision, trust_remote_code=self.trust_remote_code)

    def read_hidden_size(self) -> int:
        return transformer_dimension(locate_model(self.model, revision=self.revision))

    def read_dimension(self) -> int:
        return self.dense_dim or folder_dimension(locate_model(self.model, revision=self.revision))

    def build(self, corpus: StudentCorpus, *, normalize: bool, seed: int) -> SentenceEncoder:
        start = load_encoder(
            self.model,
            revision=self.revision,
            pooling=self.pooling,
            prompt=self.prompt,
            trust_remote_code=self.trust_remote_code,
        )
        backbone: Any = start.backbone
        tokenizer = start.tokenizer
        if self.keep_layers is not None:
            select_layers(backbone, self.keep_layers)
        if self.trimming.enabled:
            texts, held_out = ([start.text.prompt + t for t in part] for part in (corpus.pairs.texts, corpus.held_out))
            tokenizer = self.trimming.apply(backbone, tokenizer, texts, held_out, lower_case=start.text.lower_case)
        if self.dropout is not None:
            set_dropout(backbone, self.dropout)
        torch.manual_seed(seed)
        if self.adapters.enabled:
            start.requires_grad_(False)
            self.adapters.attach(backbone, self.model)
        max_length = min(self.max_length, model_max_length(backbone, tokenizer))
        encoder = self.assemble(backbone, tokenizer, normalize=normalize, max_length=max_length)
        encoder.pooling = start.pooling
        encoder.text = replace(start.text, max_length=max_length)
        if self.dense_dim is None:
            encoder.denses = start.denses
        return encoder
