"""The gradient of a step: its batches through student and loss, in the memory there is, of all processes.

Shapes: B pairs, N sentences that the student reads, D student and W pre-projection dimensions, R embedding rows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.data.token_store import TokenIds
from mlkd.distributed.gradient_sync import average_gradients
from mlkd.distributed.process_group import PeerOutOfMemoryError, ProcessGroup
from mlkd.distributed.random_state import random_state, set_random_state
from mlkd.losses.all_gather import gather_rows, sum_of_all
from mlkd.losses.gradient_shares import gradient_norms, shares_of
from mlkd.losses.masked_lm import MASKED_LM
from mlkd.losses.mix import LossValues, MixLoss, gradient_shares
from mlkd.losses.pair_vectors import PairVectors
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder, autocast
from mlkd.models.sparse_embedding import use_sparse_embedding
from mlkd.optim.optimizer import Optim
from mlkd.runtime.out_of_memory import fewer_tokens, release_device_memory
from mlkd.training.dataloader import Batch, TrainingData
from mlkd.training.state import Intervals, TrainState

log = logging.getLogger("mlkd")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerArguments:
    """What a trainer trains, on what, and how.

    Args:
        student: in training mode, on its device.
        loss: on the same device; may hold a projection.
        data: see TrainingData.
        optim: its schedule and clipping.
        intervals: see Intervals.
        precision: autocast type of the forward pass, None for fp32.
        max_tokens: token positions in one forward pass.
        caching: keep vectors instead of activations until the backward pass; see mlkd.models.gradient_cache.
        masked_lm: trained beside the mix, on the same device; None where it has no weight.
    """

    student: SentenceEncoder
    loss: MixLoss
    data: TrainingData
    optim: Optim
    intervals: Intervals
    precision: torch.dtype | None = None
    max_tokens: int
    caching: bool = False
    masked_lm: MaskedLm | None = None


@dataclass(frozen=True, slots=True)
class Gradient:
    """What a step's batches gave beside the gradients in the weights.

    Args:
        values: the last batch's loss.
        shares: each term's share of the gradient, where asked for.
        num_tokens: read by the student for the terms on vectors.
        sparse_gradients: rows and gradients of the token embedding, where a row-wise optimiser takes them.
        is_finite: whether the last batch's loss is, on all processes.
    """

    values: LossValues
    shares: dict[str, float] | None
    num_tokens: int
    sparse_gradients: list[tuple[Tensor, Tensor]]
    is_finite: bool


class GradientComputation:
    """Student, loss, optimiser and training state, as far as a step's gradient needs them.

    Where several processes train together, each has one of these and takes the same steps: all of them draw the same
    batch, each reads its part of the texts, all compute the loss of the whole, and gradients are averaged.
    """

    def __init__(self, arguments: TrainerArguments) -> None:
        self.student = arguments.student
        self.loss = arguments.loss
        self.data = arguments.data
        self.optim = arguments.optim
        self.intervals = arguments.intervals
        self.precision = arguments.precision
        self.wanted_tokens = arguments.max_tokens
        self.caching = arguments.caching
        self.masked_lm = arguments.masked_lm
        self.state = TrainState()
        self.process_group = ProcessGroup()
        self.embedding = use_sparse_embedding(self.student)
        trained = self.loss if self.masked_lm is None else nn.ModuleList([self.loss, self.masked_lm])
        self.optimizer = self.optim.build(self.student, trained, self.embedding.weight)
        self.sparse_adamw = self.optim.build_sparse_adamw(self.embedding.weight)

    @property
    def max_tokens(self) -> int:
        """Token positions in one forward pass."""
        return self.state.max_tokens or self.wanted_tokens

    def gradient_in_memory(self, *, with_shares: bool) -> Gradient:
        """`gradient`, of the same batches once more with less in memory where the device has too little."""
        first_batch, random = self.state.batch, random_state(self.student.device)
        while True:
            others_know = False
            try:
                return self.gradient(with_shares=with_shares)
            except PeerOutOfMemoryError:
                others_know = True
            except torch.OutOfMemoryError:
                pass
            if not others_know:
                self.process_group.synchronize(out_of_memory=True)
            self.optimizer.zero_grad(set_to_none=True)
            self.embedding.release()
            release_device_memory()
            self.use_less_memory(first_batch)
            self.state.batch = first_batch
            set_random_state(self.student.device, random)

    def gradient(self, *, with_shares: bool) -> Gradient:
        """Sum the gradients of the step's batches in the weights; those of all processes."""
        num_tokens = 0
        shares: dict[str, float] | None = None
        sparse_gradients: list[tuple[Tensor, Tensor]] = []
        read: list[Tensor | None] = []
        for _ in range(self.optim.accumulation_steps):
            batch = self.next_batch()
            self.gather_rows(batch.tokens)
            read.append(self.embedding.rows_R)
            values, vectors = self.forward(batch)
            if with_shares:
                shares = self.shares(values, vectors)
            (values.total / self.optim.accumulation_steps).backward()  # type: ignore[no-untyped-call]
            sparse_gradients += self.release_rows()
            num_tokens += batch.num_tokens
        if self.process_group.is_distributed:
            sparse_gradients = average_gradients(
                self.process_group, self.optimizer, self.embedding.weight, sparse_gradients, read
            )
        is_bad = self.process_group.any_of([not torch.isfinite(values.total)])[0]
        return Gradient(values, shares, num_tokens, sparse_gradients, not is_bad)

    def next_batch(self) -> Batch:
        """The next batch of the fixed order; a function of seed and how many were drawn before."""
        batch = self.data.batch(self.state.batch, self.loss.mix)
        self.state.batch += 1
        return batch

    def forward(self, batch: Batch) -> tuple[LossValues, PairVectors]:
        """Loss of a batch; all its sentences go through the student together."""
        passes: dict[str, Any] = {"max_tokens": self.max_tokens, "caching": self.caching}
        pre_projection = self.loss.mix.needs_pre_projection
        parts = self.process_group.partition([len(row) for row in batch.tokens])
        own = [batch.tokens[i] for i in parts[self.process_group.rank]]
        with autocast(self.student.device, self.precision):
            found = self.student.forward_tokens(own, **passes, pre_projection=pre_projection)
        if self.process_group.is_distributed:
            found = gather_rows(found, parts, self.process_group.rank, self.process_group.sum)
        student_ND, pre_projection_NW = found[:, : self.student.dimension], found[:, self.student.dimension :]
        vectors = self.data.pair_vectors(batch, student_ND, pre_projection_NW if pre_projection else None)
        values = self.loss(vectors)
        if self.masked_lm is not None:
            term = self.masked_term(batch, passes)
            values = values.plus(MASKED_LM, term, self.loss.mix.delta)
        return values, vectors

    def masked_term(self, batch: Batch, passes: dict[str, Any]) -> Tensor:
        """Loss of the masked language model, over the hidden tokens of the whole batch."""
        assert self.masked_lm is not None
        sentences = batch.tokens[: batch.num_sentences]
        own = self.process_group.partition([len(row) for row in sentences])[self.process_group.rank]
        with autocast(self.student.device, self.precision):
            term = self.masked_lm(self.student, self.embedding, sentences, batch=batch.number, own=own, **passes)
        return (
            sum_of_all(term, self.process_group.size, self.process_group.sum)
            if self.process_group.is_distributed
            else term
        )

    def shares(self, values: LossValues, vectors: PairVectors) -> dict[str, float]:
        """Each term's share of the gradient; they sum to 1.

        Terms on vectors are compared by the gradient at the student's vectors. The masked language model does not
        see these: it is compared with all of them together, by the gradient at the student's weights without token
        embeddings.
        """
        masked_lm = values.weighted.get(MASKED_LM)
        if masked_lm is None:
            return gradient_shares(values, vectors.student_vectors)
        weighted = {name: value for name, value in values.weighted.items() if name != MASKED_LM}
        total = torch.stack(list(weighted.values())).sum()
        weights = [p for p in self.student.parameters() if p.requires_grad and p is not self.embedding.weight]
        mean = self.process_group.mean if self.process_group.is_distributed else None
        share = shares_of(gradient_norms({"mix": total, MASKED_LM: masked_lm}, weights, mean))
        inside = shares_of(gradient_norms(weighted, vectors.student_vectors))
        return {**{name: share["mix"] * s for name, s in inside.items()}, MASKED_LM: share[MASKED_LM]}

    def gather_rows(self, tokens: list[TokenIds]) -> None:
        """Give the embedding the rows of this batch, padding among them; all where the whole vocabulary is compared."""
        sparse = self.sparse_adamw is not None
        if self.masked_lm is not None:
            self.embedding.gather_all(sparse=sparse)
            return
        rows = np.unique(np.concatenate([*tokens, [self.student.pad_id]])).astype(np.int64)
        self.embedding.gather(torch.from_numpy(rows).to(self.student.device), sparse=sparse)

    def release_rows(self) -> list[tuple[Tensor, Tensor]]:
        """End the batch's table of embedding rows; its rows and gradient where a row-wise optimiser takes them."""
        rows, table = self.embedding.rows_R, self.embedding.table_RH
        self.embedding.release()
        if self.sparse_adamw is None or rows is None or table is None or table.grad is None:
            return []
        return [(rows, table.grad)]

    def use_less_memory(self, batch: int) -> None:
        """Cache gradients from here on, or have fewer tokens in a forward pass; batches and negatives stay."""
        if not self.caching:
            self.caching = True
            log.warning("out of device memory: gradients are cached from here on (hardware.gradient_caching=true)")
            return
        longest = max(map(len, self.data.batch(batch, self.loss.mix).tokens))
        self.state.max_tokens = fewer_tokens(self.max_tokens, longest, "training")

    def weights(self) -> list[Tensor]:
        """All tensors that must be equal in processes that train together, in one order."""
        modules = [self.student, self.loss, *([] if self.masked_lm is None else [self.masked_lm])]
        return [tensor for module in modules for tensor in module.state_dict().values()]
