"""Gradient synchronisation: gradients in each step, random states at each checkpoint.

Shapes: R rows of the token embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlkd.distributed.process_group import ProcessGroup, checksums
from mlkd.distributed.random_state import of_rank
from mlkd.errors import fail
from mlkd.optim.sparse_adamw import coalesce

SparseGradient = tuple[Tensor, Tensor]


def average_gradients(
    process_group: ProcessGroup,
    optimizer: torch.optim.Optimizer,
    embedding: Tensor,
    sparse_gradients: Sequence[SparseGradient],
    read: Sequence[Tensor | None],
) -> list[SparseGradient]:
    """Replace all gradients by their means over the processes.

    Args:
        ranks: two or more.
        optimizer: of the weights.
        embedding: the weight of the token embedding.
        sparse_gradients: its rows and gradients, where a row-wise optimiser takes them.
        read: the rows (R,) of it that each batch has read, the same on every process; None for all.

    Returns:
        The means of `sparse_gradients`, merged.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    wanted = process_group.any_of([p.grad is not None for p in parameters])
    moved = [p for p, is_wanted in zip(parameters, wanted, strict=True) if is_wanted]
    for parameter in moved:
        if parameter.grad is None:  # this process's part had none
            parameter.grad = torch.zeros_like(parameter)
    merged = [coalesce(list(sparse_gradients))] if sparse_gradients else []
    tensors = [p.grad for p in moved if p is not embedding] + [gradient for _, gradient in merged]
    if not any(p is embedding for p in moved):
        process_group.mean(tensors)
        return merged
    assert embedding.grad is not None
    some = [rows for rows in read if rows is not None]
    if len(some) < len(read):
        process_group.mean([*tensors, embedding.grad])
        return merged
    rows_R = torch.unique(torch.cat(some))  # of all others the gradient is zero everywhere
    part_RH = embedding.grad[rows_R]
    process_group.mean([*tensors, part_RH])
    embedding.grad[rows_R] = part_RH
    return merged


def collect_random_states(process_group: ProcessGroup, weights: Sequence[Tensor], step: int) -> dict[str, Tensor]:
    """Random states of the other processes, after a look at their weights.

    Raises:
        MlkdError: E602 where a process has other weights than this one.
    """
    answers = process_group.gather_answers("state")
    own = checksums(weights) if answers else []
    found: dict[str, Tensor] = {}
    for rank, (random, sums) in enumerate(answers, start=1):
        if sums != own:
            raise fail(
                "E602",
                f"process {rank + 1} of {process_group.size} has other weights than the first one after step {step}",
                remedy="this is a bug of mlkd or of a device: please report it; the same command with "
                "hardware.num_processes=1 continues from the last checkpoint",
            )
        found |= of_rank({name: torch.from_numpy(state) for name, state in random.items()}, rank)
    return found
