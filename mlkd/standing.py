"""How far a run is, when it does what, and the lines it logs about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mlkd.losses.mix import LossValues
from mlkd.runtime.devices import peak_memory_bytes
from mlkd.runtime.progress import Progress


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
class Rhythm:
    """When things happen, in optimiser steps."""

    total_steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None


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
