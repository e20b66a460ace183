"""Settings of the optimiser: AdamW, its schedule, and how long a run is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlkd.errors import MlkdError, Problem, fail, out_of_range
from mlkd.optim.adamw import parameter_groups
from mlkd.optim.schedule import Schedule, scheduled_rate
from mlkd.optim.sparse_adamw import SparseAdamW


@dataclass(kw_only=True, slots=True)
class Optim:
    """How the student's weights move, and for how long.

    Args:
        lr: peak learning rate, > 0.
        embedding_lr_factor: the token embeddings learn at lr times this; a fresh vocabulary gains from 5 to 20.
        sparse_embeddings: sparse updates of the token embedding, of the rows in the batch alone; saves most of a step
            where the vocabulary is large. See `mlkd.optim.sparse_adamw.SparseAdamW` for how that differs from AdamW.
        weight_decay: decoupled (AdamW); biases and normalisation weights are not decayed.
        beta1, beta2, eps: of AdamW.
        clip_norm: gradients are scaled down to this global norm; None clips nothing. A norm is in
            units of the loss: loss=mse is a mean over E dimensions, its gradients are 2 / E of loss=cosine's, and 1.0
            clips none of them.
        schedule: of the learning rate after warm-up.
        warmup_steps, warmup_ratio: steps of linear warm-up from 0, as a number or as a share of all steps; set one.
        batch_size: sentence pairs that meet in one loss, the pool of in-batch negatives.
        accumulation_steps: batches whose gradients are averaged into one optimiser step.
        epochs, max_steps: the length of the run in passes over the corpus or in optimiser steps; set one.
    """

    lr: float = 2e-5
    embedding_lr_factor: float = 1.0
    sparse_embeddings: bool = False
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    clip_norm: float | None = 1.0
    schedule: Schedule = Schedule.constant
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    batch_size: int = 64
    accumulation_steps: int = 1
    epochs: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        problems = [
            *out_of_range(self, "lr", "embedding_lr_factor", "eps", "clip_norm", "epochs", gt=0),
            *out_of_range(self, "weight_decay", "warmup_steps", ge=0),
            *out_of_range(self, "beta1", "beta2", ge=0, lt=1),
            *out_of_range(self, "warmup_ratio", ge=0, le=1),
            *out_of_range(self, "batch_size", "accumulation_steps", "max_steps", ge=1),
        ]
        problems += self._contradictions()
        if problems:
            raise MlkdError(problems)

    def _contradictions(self) -> list[Problem]:
        problems = []
        if self.epochs is not None and self.max_steps is not None:
            what = f"set only one of max_steps ({self.max_steps}) and epochs ({self.epochs})"
            problems.append(Problem("E209", what, remedy="add optim.epochs=null or optim.max_steps=null"))
        if self.epochs is None and self.max_steps is None:
            problems.append(Problem("E205", "set epochs or max_steps. Example: optim.epochs=5"))
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            what = f"set only one of warmup_steps ({self.warmup_steps}) and warmup_ratio ({self.warmup_ratio})"
            problems.append(Problem("E209", what, remedy="add optim.warmup_ratio=null or optim.warmup_steps=null"))
        if self.warmup_steps is not None and self.max_steps is not None and self.warmup_steps > self.max_steps:
            what = f"must be <= max_steps={self.max_steps} (got {self.warmup_steps})"
            problems.append(Problem("E204", what, "warmup_steps"))
        return problems

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps of the run.

        Raises:
            MlkdError: E204 where warm-up is longer than the run.
        """
        per_epoch = batches_per_epoch / self.accumulation_steps
        steps = self.max_steps if self.max_steps is not None else max(1, math.ceil((self.epochs or 0) * per_epoch))
        if self.warmup_steps is not None and self.warmup_steps > steps:
            raise fail(
                "E204",
                f"must be <= the run's {steps:,} steps (got {self.warmup_steps:,})",
                where="optim.warmup_steps",
                remedy="train longer, or set optim.warmup_steps=null optim.warmup_ratio=0.1",
            )
        return steps

    def learning_rate(self, step: int, total_steps: int) -> float:
        """The learning rate of optimiser step `step`, counted from 0.

        >>> o = Optim(lr=1.0, schedule=Schedule.linear, warmup_steps=2, max_steps=6)
        >>> [round(o.learning_rate(s, 6), 2) for s in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warmup = self.warmup_steps if self.warmup_steps is not None else round((self.warmup_ratio or 0) * total_steps)
        return scheduled_rate(self.lr, self.schedule, step, warmup, total_steps)

    def build(self, student: nn.Module, loss: nn.Module, embedding: Tensor) -> torch.optim.AdamW:
        """AdamW over all trainable weights of student and loss (its projection).

        Args:
            student: its parameters, in their own order, define the optimiser's state on disk.
            loss: likewise.
            embedding: the token embedding among the student's parameters.
        """
        frozen = embedding if self.sparse_embeddings else None
        groups = parameter_groups(
            (p for module in (student, loss) for p in module.parameters() if p.requires_grad and p is not frozen),
            self.weight_decay,
            {embedding: self.embedding_lr_factor},
        )
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)

    def build_sparse_adamw(self, embedding: Tensor) -> SparseAdamW | None:
        """The row-wise optimiser of the token embedding, where `sparse_embeddings` asks for it and it is not frozen."""
        if not self.sparse_embeddings or not embedding.requires_grad:
            return None
        return SparseAdamW(embedding, (self.beta1, self.beta2), self.eps, self.weight_decay)
