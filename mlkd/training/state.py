"""How far a run is, when it does what, and the lines it logs about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TrainState:
    """How far a run is; the part of its state that is neither weights nor tensors.

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


@dataclass(frozen=True, slots=True)
class Intervals:
    """When things happen, in optimiser steps."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None
