"""The training loop: batches of token ids and teacher targets in, a trained student out.

Shapes: B pairs, D student dimensions, E teacher dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.data.batches import Batches, Indices
from mlkd.data.tokens import TokenIds, TokenStore
from mlkd.data.training import TrainingPairs
from mlkd.errors import fail
from mlkd.losses.mix import LossValues, MixLoss, gradient_shares
from mlkd.losses.vectors import PairVectors
from mlkd.models.rows import RowEmbedding, merge_rows
from mlkd.models.sentence_encoder import SentenceEncoder, autocast
from mlkd.optim import Optim, load_optimizer_tensors, optimizer_tensors, set_learning_rate
from mlkd.runtime.checkpoints import Checkpoint, CheckpointWriter
from mlkd.runtime.devices import peak_memory_bytes, return_free_memory
from mlkd.runtime.interrupts import Interrupts
from mlkd.runtime.progress import Progress
from mlkd.runtime.run_log import RunLog
from mlkd.teacher.store import Positions
from mlkd.teacher.targets import TeacherTargets

log = logging.getLogger("mlkd")
MAX_SKIPPED = 3


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything a step reads: pairs, their tokens, their teacher vectors, and the order they come in."""

    pairs: TrainingPairs
    tokens: TokenStore
    targets: TeacherTargets
    positions: Positions
    batches: Batches

    def teacher(self, texts: Indices, device: torch.device) -> Tensor:
        """Teacher vectors of texts, float32 (B, E)."""
        return self.targets.rows(self.positions[texts]).to(device, non_blocking=True)


@dataclass(slots=True)
class Standing:
    """How far a run is; the part of its state that is neither weights nor tensors.

    Args:
        step: optimiser steps done.
        batch: batches drawn, over all epochs.
        best: value of the declared metric at the best evaluation so far.
        best_step: its step.
        evaluations_since_best: for early stopping.
        skipped: steps in a row whose loss or gradient was not finite.
    """

    step: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When things happen, in optimiser steps."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None


class Distillation:
    """One run: student, loss and optimiser, and the standing that a checkpoint restores.

    Args:
        student: in training mode, on its device.
        loss: on the same device; may hold a projection.
        data: see TrainingData.
        optim: its schedule and clipping.
        rhythm: see Rhythm.
        precision: autocast type of the forward pass, None for fp32.
        max_tokens: token positions in one forward pass.
    """

    def __init__(
        self,
        student: SentenceEncoder,
        loss: MixLoss,
        data: TrainingData,
        optim: Optim,
        rhythm: Rhythm,
        *,
        precision: torch.dtype | None,
        max_tokens: int,
    ) -> None:
        self.student = student
        self.loss = loss
        self.data = data
        self.optim = optim
        self.rhythm = rhythm
        self.precision = precision
        self.max_tokens = max_tokens
        self.standing = Standing()
        self.embedding = row_embedding(student)
        self.optimizer = optim.build(student, loss, self.embedding.weight)
        self.lazy_rows = optim.build_lazy_rows(self.embedding.weight)
        self._epoch: tuple[int, list[Indices]] = (-1, [])

    def train(
        self, run_log: RunLog, evaluate: Callable[[Standing], bool], writer: CheckpointWriter, interrupts: Interrupts
    ) -> None:
        """Steps until the run is complete, stops early or is interrupted; saved whenever it leaves.

        Args:
            run_log: open.
            evaluate: scores the student at this standing and returns whether it is the best so far.
            writer: of checkpoints.
            interrupts: active.
        """
        standing, rhythm = self.standing, self.rhythm
        saved = standing.step
        with run_log.progress() as progress:
            while not self.finished and interrupts.requested is None:
                values, shares, num_tokens = self.step(with_shares=(standing.step + 1) % rhythm.log_every == 0)
                lr = self.optim.learning_rate(standing.step - 1, rhythm.total_steps)
                losses = {"loss": values.total.detach(), **{k: v.detach() for k, v in values.weighted.items()}}
                progress.update(standing.step, losses, lr, 2 * self.pairs_per_step, num_tokens)
                if shares is not None:
                    run_log.log_step(standing.step, metrics(values, shares, lr))
                    run_log.log_timing(standing.step, timing(progress, self.student.device))
                    return_free_memory()
                if standing.step % rhythm.evaluate_every == 0 or standing.step == rhythm.total_steps:
                    with progress.paused():
                        is_best = evaluate(standing)
                    standing.evaluations_since_best = 0 if is_best else standing.evaluations_since_best + 1
                if standing.step % rhythm.checkpoint_every == 0 or self.finished:
                    self.save(writer)
                    saved = standing.step
        if saved != standing.step:
            self.save(writer)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or early stopping ended the run."""
        patience = self.rhythm.patience
        return self.standing.step >= self.rhythm.total_steps or (
            patience is not None and self.standing.evaluations_since_best >= patience
        )

    @property
    def pairs_per_step(self) -> int:
        return self.optim.batch_size * self.optim.accumulation_steps

    def step(self, *, with_shares: bool = False) -> tuple[LossValues, dict[str, float] | None, int]:
        """One optimiser step; a loss or gradient that is not finite moves nothing.

        Returns:
            The last batch's loss values, each term's share of the gradient if asked for, and tokens read.
        """
        lr = self.optim.learning_rate(self.standing.step, self.rhythm.total_steps)
        num_tokens = 0
        first_batch = self.standing.batch
        shares: dict[str, float] | None = None
        lazy_parts: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.optim.accumulation_steps):
            values, vectors, tokens = self.forward(self.next_batch())
            if with_shares:
                shares = gradient_shares(values, [vectors.student_source_BD, vectors.student_target_BD])
            (values.total / self.optim.accumulation_steps).backward()  # type: ignore[no-untyped-call]
            lazy_parts += self.release_rows()
            num_tokens += tokens
        self.update(lr, lazy_parts, finite=bool(torch.isfinite(values.total)), first_batch=first_batch)
        self.standing.step += 1
        return values, shares, num_tokens

    def update(self, lr: float, lazy_parts: list[tuple[Tensor, Tensor]], *, finite: bool, first_batch: int) -> None:
        """Clip and apply the gradients, unless loss or gradient is not finite."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        merged = merge_rows(lazy_parts) if lazy_parts else None
        if merged is not None:
            gradients.append(merged[1])
        norm = torch.nn.utils.get_total_norm(gradients)
        if finite and torch.isfinite(norm):
            if self.optim.clip_norm is not None:
                torch._foreach_mul_(gradients, torch.clamp(self.optim.clip_norm / (norm + 1e-6), max=1.0))
            set_learning_rate(self.optimizer, lr)
            self.optimizer.step()
            if merged is not None and self.lazy_rows is not None:
                self.lazy_rows.step(*merged, lr * self.optim.embedding_lr_factor)
            self.standing.skipped = 0
        else:
            self._skip(first_batch)
        self.optimizer.zero_grad(set_to_none=True)

    def release_rows(self) -> list[tuple[Tensor, Tensor]]:
        """End the batch's table of embedding rows; its rows and gradient where a row-wise optimiser takes them."""
        rows, table = self.embedding.rows_R, self.embedding.table_RH
        self.embedding.release()
        if self.lazy_rows is None or rows is None or table is None or table.grad is None:
            return []
        return [(rows, table.grad)]

    def forward(self, rows: Indices) -> tuple[LossValues, PairVectors, int]:
        """Loss of the pairs `rows`; sources and targets go through the student together."""
        pairs, device = self.data.pairs, self.student.device
        source, target = pairs.source[rows], pairs.target[rows]
        tokens = [self.data.tokens[int(i)] for i in (*source, *target)]
        self.gather_rows(tokens)
        with autocast(device, self.precision):
            student_2BD = self.student.forward_tokens(tokens, self.max_tokens)
        source_BD, target_BD = student_2BD[: len(rows)], student_2BD[len(rows) :]
        vectors = PairVectors(
            student_source_BD=source_BD,
            student_target_BD=target_BD,
            teacher_source_BE=self.data.teacher(source, device),
            teacher_target_BE=self.data.teacher(target, device) if self.loss.mix.needs_teacher_target else None,
            source_ids_B=torch.from_numpy(source).to(device),
        )
        return self.loss(vectors), vectors, sum(map(len, tokens))

    def gather_rows(self, tokens: list[TokenIds]) -> None:
        """Give the embedding the rows of this batch; padding is among them."""
        rows = np.unique(np.concatenate([*tokens, [self.student.pad_id]])).astype(np.int64)
        self.embedding.gather(torch.from_numpy(rows).to(self.student.device), lazy=self.lazy_rows is not None)

    def next_batch(self) -> Indices:
        """The next batch of the fixed order; a function of seed and how many were drawn before."""
        epoch, position = divmod(self.standing.batch, self.data.batches.num_batches)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.data.batches.epoch(epoch))
        self.standing.batch += 1
        return self._epoch[1][position]

    def _skip(self, first_batch: int) -> None:
        self.standing.skipped += 1
        what = f"loss or gradient is not finite at step {self.standing.step + 1} (batches from {first_batch})"
        if self.standing.skipped >= MAX_SKIPPED:
            raise fail(
                "E601",
                f"{what}, {MAX_SKIPPED} steps in a row",
                remedy="lower optim.lr, lengthen the warm-up, or set hardware.precision=fp32; "
                "the last good checkpoint is kept",
            )
        log.warning("%s: skipped, weights unchanged", what)

    def save(self, writer: CheckpointWriter) -> None:
        """Write a checkpoint of everything that decides how the run goes on."""
        random = {"cpu": torch.get_rng_state()}
        if self.student.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.student.device)
        tensors = {
            "student": self.student.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "lazy_rows": self.lazy_rows.tensors() if self.lazy_rows is not None else {},
            "random": random,
        }
        writer.save(
            self.standing.step, {name: group for name, group in tensors.items() if group}, asdict(self.standing)
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was saved."""
        self.student.load_state_dict(checkpoint.tensors["student"])
        self.loss.load_state_dict(checkpoint.tensors.get("loss", {}))
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])
        if self.lazy_rows is not None:
            self.lazy_rows.load_tensors(checkpoint.tensors["lazy_rows"])
        torch.set_rng_state(checkpoint.tensors["random"]["cpu"])
        if "cuda" in checkpoint.tensors["random"] and self.student.device.type == "cuda":
            torch.cuda.set_rng_state(checkpoint.tensors["random"]["cuda"], self.student.device)
        self.standing = Standing(**checkpoint.state)


def row_embedding(student: SentenceEncoder) -> RowEmbedding:
    """Put a RowEmbedding over the student's token embedding and return it."""
    body: Any = student.body
    embedding = RowEmbedding(body.get_input_embeddings()).to(student.device)
    body.set_input_embeddings(embedding)
    return embedding


def timing(progress: Progress, device: torch.device) -> dict[str, float]:
    """One line of timing.jsonl: rates over the last half minute, and peak memory."""
    rates = progress.rates
    return {
        "sentences_per_s": rates.sentences,
        "tokens_per_s": rates.tokens,
        "peak_memory_mib": peak_memory_bytes(device) / 2**20,
    }


def metrics(values: LossValues, shares: dict[str, float], lr: float) -> dict[str, Any]:
    """One line of metrics.jsonl: the loss, each term raw, weighted and as a share of the gradient, and the rate."""
    line: dict[str, Any] = {"loss": float(values.total.detach()), "lr": lr}
    for name in values.raw:
        line[f"loss/{name}"] = float(values.weighted[name].detach())
        line[f"raw/{name}"] = float(values.raw[name].detach())
        line[f"gradient_share/{name}"] = shares[name]
    return line
