"""Metrics of a logged step: a line of metrics.jsonl and one of timing.jsonl."""

from __future__ import annotations

from typing import Any

import torch

from mlkd.losses.mix import LossValues
from mlkd.runtime.devices import peak_memory_bytes
from mlkd.runtime.progress import Progress


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
