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
from torch import Tensor, nn

from mlkd.data.token_store import TokenIds
from mlkd.distributed.gradient_sync import average_gradients, collect_random_states
from mlkd.distributed.process_group import PeerOutOfMemoryError, ProcessGroup
from mlkd.distributed.random_state import from_checkpoint, num_streams, random_state, set_random_state
from mlkd.errors import fail
from mlkd.losses.all_gather import gather_rows, sum_of_all
from mlkd.losses.gradient_shares import NegligibleTerms, gradient_norms, shares_of
from mlkd.losses.masked_lm import MASKED_LM
from mlkd.losses.mix import LossValues, MixLoss, gradient_shares
from mlkd.losses.pair_vectors import PairVectors
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder, autocast
from mlkd.models.sparse_embedding import SparseEmbedding
from mlkd.optim.optimizer import Optim, load_optimizer_tensors, optimizer_tensors, set_learning_rate
from mlkd.optim.sparse_adamw import coalesce
from mlkd.runtime.checkpoints import Checkpoint, CheckpointWriter
from mlkd.runtime.devices import return_free_memory
from mlkd.runtime.log import RunLog
from mlkd.runtime.out_of_memory import fewer_tokens, release_device_memory
from mlkd.runtime.signals import Interrupts
from mlkd.training.dataloader import Batch, TrainingData
from mlkd.training.metrics import metrics, timing
from mlkd.training.state import Intervals, TrainState

log = logging.getLogger("mlkd")
MAX_SKIPPED = 3


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


class Trainer:
    """One run: student, loss and optimiser, and the training state that a checkpoint restores.

    Where several processes train together, each has one of these and takes the same steps: all of them draw the same
    batch, each reads its part of the texts, all compute the loss of the whole, and gradients are averaged.

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

    def __init__(
        self,
        student: SentenceEncoder,
        loss: MixLoss,
        data: TrainingData,
        optim: Optim,
        intervals: Intervals,
        *,
        precision: torch.dtype | None,
        max_tokens: int,
        caching: bool = False,
        masked_lm: MaskedLm | None = None,
    ) -> None:
        self.student = student
        self.loss = loss
        self.data = data
        self.optim = optim
        self.intervals = intervals
        self.precision = precision
        self.wanted_tokens = max_tokens
        self.caching = caching
        self.masked_lm = masked_lm
        self.state = TrainState()
        self.process_group = ProcessGroup()
        self.negligible_terms = NegligibleTerms()
        self.embedding = use_sparse_embedding(student)
        trained = loss if masked_lm is None else nn.ModuleList([loss, masked_lm])
        self.optimizer = optim.build(student, trained, self.embedding.weight)
        self.sparse_adamw = optim.build_sparse_adamw(self.embedding.weight)

    def train(
        self, run_log: RunLog, evaluate: Callable[[TrainState], bool], writer: CheckpointWriter, interrupts: Interrupts
    ) -> None:
        """Steps until the run is complete, stops early or is interrupted; saved whenever it leaves.

        Args:
            run_log: open.
            evaluate: scores the student at this state and returns whether it is the best so far.
            writer: of checkpoints.
            interrupts: active.
        """
        state, intervals = self.state, self.intervals
        saved = state.step
        with run_log.progress() as progress:
            while not self.finished and interrupts.requested is None:
                values, shares, num_tokens = self.step(with_shares=(state.step + 1) % intervals.log_every == 0)
                lr = self.optim.learning_rate(state.step - 1, intervals.total_steps)
                losses = {"loss": values.total.detach(), **{k: v.detach() for k, v in values.weighted.items()}}
                progress.update(state.step, losses, lr, 2 * self.pairs_per_step, num_tokens)
                if shares is not None:
                    self.negligible_terms.observe(shares)
                    run_log.log_step(state.step, metrics(values, shares, lr))
                    run_log.log_timing(state.step, timing(progress, self.student.device))
                    return_free_memory()
                if state.step % intervals.evaluate_every == 0 or state.step == intervals.total_steps:
                    with progress.paused():
                        is_best = evaluate(state)
                    state.evaluations_since_best = 0 if is_best else state.evaluations_since_best + 1
                if state.step % intervals.checkpoint_every == 0 or self.finished:
                    self.save(writer)
                    saved = state.step
        if saved != state.step:
            self.save(writer)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or early stopping ended the run."""
        patience = self.intervals.patience
        return self.state.step >= self.intervals.total_steps or (
            patience is not None and self.state.evaluations_since_best >= patience
        )

    @property
    def pairs_per_step(self) -> int:
        return self.optim.batch_size * self.optim.accumulation_steps

    @property
    def max_tokens(self) -> int:
        """Token positions in one forward pass."""
        return self.state.max_tokens or self.wanted_tokens

    def step(self, *, with_shares: bool = False) -> tuple[LossValues, dict[str, float] | None, int]:
        """One optimiser step; a loss or gradient that is not finite moves nothing.

        Returns:
            The last batch's loss values, each term's share of the gradient if asked for, and tokens read.
        """
        self.process_group.send("step", with_shares)
        lr = self.optim.learning_rate(self.state.step, self.intervals.total_steps)
        first_batch = self.state.batch
        gradient = self.gradient_in_memory(with_shares=with_shares)
        self.update(lr, gradient.sparse_gradients, finite=gradient.is_finite, first_batch=first_batch)
        self.state.step += 1
        return gradient.values, gradient.shares, gradient.num_tokens

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

    def use_less_memory(self, batch: int) -> None:
        """Cache gradients from here on, or have fewer tokens in a forward pass; batches and negatives stay."""
        if not self.caching:
            self.caching = True
            log.warning("out of device memory: gradients are cached from here on (hardware.gradient_caching=true)")
            return
        longest = max(map(len, self.data.batch(batch, self.loss.mix).tokens))
        self.state.max_tokens = fewer_tokens(self.max_tokens, longest, "training")

    def update(
        self, lr: float, sparse_gradients: list[tuple[Tensor, Tensor]], *, finite: bool, first_batch: int
    ) -> None:
        """Clip and apply the gradients, unless loss or gradient is not finite."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        merged = coalesce(sparse_gradients) if sparse_gradients else None
        if merged is not None:
            gradients.append(merged[1])
        norm = torch.nn.utils.get_total_norm(gradients)
        if finite and torch.isfinite(norm):
            if self.optim.clip_norm is not None:
                torch._foreach_mul_(gradients, torch.clamp(self.optim.clip_norm / (norm + 1e-6), max=1.0))
            set_learning_rate(self.optimizer, lr)
            self.optimizer.step()
            if merged is not None and self.sparse_adamw is not None:
                self.sparse_adamw.step(*merged, lr * self.optim.embedding_lr_factor)
            self.state.skipped = 0
        else:
            self._skip(first_batch)
        self.optimizer.zero_grad(set_to_none=True)

    def release_rows(self) -> list[tuple[Tensor, Tensor]]:
        """End the batch's table of embedding rows; its rows and gradient where a row-wise optimiser takes them."""
        rows, table = self.embedding.rows_R, self.embedding.table_RH
        self.embedding.release()
        if self.sparse_adamw is None or rows is None or table is None or table.grad is None:
            return []
        return [(rows, table.grad)]

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

    def next_batch(self) -> Batch:
        """The next batch of the fixed order; a function of seed and how many were drawn before."""
        batch = self.data.batch(self.state.batch, self.loss.mix)
        self.state.batch += 1
        return batch

    def _skip(self, first_batch: int) -> None:
        self.state.skipped += 1
        what = f"loss or gradient is not finite at step {self.state.step + 1} (batches from {first_batch})"
        if self.state.skipped >= MAX_SKIPPED:
            raise fail(
                "E601",
                f"{what}, {MAX_SKIPPED} steps in a row",
                remedy="lower optim.lr, lengthen the warm-up, or set hardware.precision=fp32; "
                "the last good checkpoint is kept",
            )
        log.warning("%s: skipped, weights unchanged", what)

    def save(self, writer: CheckpointWriter) -> None:
        """Write a checkpoint of everything that decides how the run goes on."""
        others = collect_random_states(self.process_group, self.weights(), self.state.step)
        tensors = {
            "student": self.student.state_dict(),
            "loss": self.loss.state_dict(),
            "masked_lm": self.masked_lm.state_dict() if self.masked_lm is not None else {},
            "optimizer": optimizer_tensors(self.optimizer),
            "sparse_adamw": self.sparse_adamw.tensors() if self.sparse_adamw is not None else {},
            "random": {**random_state(self.student.device), **others},
        }
        writer.save(self.state.step, {name: group for name, group in tensors.items() if group}, asdict(self.state))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was saved."""
        self.student.load_state_dict(checkpoint.tensors["student"])
        self.loss.load_state_dict(checkpoint.tensors.get("loss", {}))
        if self.masked_lm is not None:
            self.masked_lm.load_state_dict(checkpoint.tensors["masked_lm"])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])
        if self.sparse_adamw is not None:
            self.sparse_adamw.load_tensors(checkpoint.tensors["sparse_adamw"])
        self.state = TrainState(**checkpoint.state)
        random = checkpoint.tensors["random"]
        own = from_checkpoint(random, self.process_group.rank)
        if own is None:
            self.process_group.seed(self.data.batches.seed, self.state.step)
        else:
            set_random_state(self.student.device, own)
        if num_streams(random) != self.process_group.size:
            what = "saved by %d process(es), continued by %d: dropout draws other numbers from here on"
            log.warning(what, num_streams(random), self.process_group.size)

    def weights(self) -> list[Tensor]:
        """All tensors that must be equal in processes that train together, in one order."""
        modules = [self.student, self.loss, *([] if self.masked_lm is None else [self.masked_lm])]
        return [tensor for module in modules for tensor in module.state_dict().values()]


def use_sparse_embedding(student: SentenceEncoder) -> SparseEmbedding:
    """Put a SparseEmbedding over the student's token embedding and return it."""
    body: Any = student.body
    embedding = SparseEmbedding(body.get_input_embeddings()).to(student.device)
    body.set_input_embeddings(embedding)
    return embedding
