"""The training loop: batches of token ids and teacher targets in, a trained student out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

from mlkd.errors import fail
from mlkd.losses.gradient_shares import NegligibleTerms
from mlkd.losses.mix import LossValues
from mlkd.optim.step import apply_gradients
from mlkd.runtime.checkpoints import CheckpointWriter
from mlkd.runtime.devices import return_free_memory
from mlkd.runtime.log import RunLog
from mlkd.runtime.signals import Interrupts
from mlkd.training.gradient import GradientComputation, TrainerArguments
from mlkd.training.metrics import metrics, timing
from mlkd.training.resume import save_training_state
from mlkd.training.state import TrainState

log = logging.getLogger("mlkd")
MAX_SKIPPED = 3


class Trainer(GradientComputation):
    """One run: steps, with logs, evaluations and checkpoints in their intervals."""

    def __init__(self, arguments: TrainerArguments) -> None:
        super().__init__(arguments)
        self.negligible_terms = NegligibleTerms()

    def train(
        self, run_log: RunLog, evaluate: Callable[[TrainState], None], writer: CheckpointWriter, interrupts: Interrupts
    ) -> None:
        """Steps until the run is complete, stops early or is interrupted; saved whenever it leaves.

        Args:
            run_log: open.
            evaluate: scores the student and records in the state whether it is the best so far.
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
                        evaluate(state)
                if state.step % intervals.checkpoint_every == 0 or self.finished:
                    save_training_state(self, writer)
                    saved = state.step
        if saved != state.step:
            save_training_state(self, writer)

    def step(self, *, with_shares: bool = False) -> tuple[LossValues, dict[str, float] | None, int]:
        """One optimiser step; a loss or gradient that is not finite moves nothing.

        Returns:
            The last batch's loss values, each term's share of the gradient if asked for, and tokens read.
        """
        self.process_group.send("step", with_shares)
        first_batch = self.state.batch
        gradient = self.gradient_in_memory(with_shares=with_shares)
        is_applied = gradient.is_finite and self.apply(gradient.sparse_gradients)
        self.optimizer.zero_grad(set_to_none=True)
        if is_applied:
            self.state.skipped = 0
        else:
            self.skip(first_batch)
        self.state.step += 1
        return gradient.values, gradient.shares, gradient.num_tokens

    def apply(self, sparse_gradients: list[tuple[Tensor, Tensor]]) -> bool:
        """Apply the gradients of this step, in the weights and in pairs of embedding rows (R,) and theirs (R, H).

        Returns:
            Whether they were applied: a norm that is not finite moves nothing.
        """
        lr = self.optim.learning_rate(self.state.step, self.intervals.total_steps)
        return apply_gradients(
            self.optimizer,
            self.sparse_adamw,
            sparse_gradients,
            lr=lr,
            embedding_lr=lr * self.optim.embedding_lr_factor,
            clip_norm=self.optim.clip_norm,
        )

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

    def skip(self, first_batch: int) -> None:
        """Count a step that moved nothing; E601 after some in a row."""
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
