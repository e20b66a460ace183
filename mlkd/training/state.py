"""Training state: step, best metric, early-stopping counter; and the intervals of logs, evaluations and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TrainState:
    """Training state: what a checkpoint holds beside weights and tensors.

    Args:
        step: optimiser steps done.
        batch: batches drawn, over all epochs.
        best: value of the declared metric at the best evaluation so far.
        best_step: its step.
        evaluations_since_best: for early stopping.
        skipped: steps in a row whose loss or gradient was not finite.
        max_tokens: token positions in a forward pass, where memory forced them below what was asked for.
    """

    step: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    skipped: int = 0
    max_tokens: int | None = None

    def record_evaluation(self, value: float | None, *, is_best: bool) -> None:
        """Take in an evaluation at this step.

        >>> state = TrainState(step=7)
        >>> state.record_evaluation(0.5, is_best=True)
        >>> state.record_evaluation(0.25, is_best=False)
        >>> state.best, state.best_step, state.evaluations_since_best
        (0.5, 7, 1)
        """
        if is_best:
            self.best, self.best_step, self.evaluations_since_best = value, self.step, 0
        else:
            self.evaluations_since_best += 1


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of a run in optimiser steps; after `patience` evaluations without a new best it stops early."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None
