"""AdamW's parameter groups, their learning rates, and its state as tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def parameter_groups(
    parameters: Iterable[Tensor], weight_decay: float, lr_factors: Mapping[Tensor, float]
) -> list[dict[str, Any]]:
    """Groups of equal decay and equal share of the learning rate, in the order of the parameters.

    Args:
        parameters: to train.
        weight_decay: of matrices; biases and normalisation weights are not decayed.
        lr_factors: of parameters that do not learn at the learning rate itself.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in parameters:
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((decay, lr_factors.get(parameter, 1.0)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (decay, factor), parameters in groups.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as a flat dict of tensors: `<parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; groups and their settings come from the configuration."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
