"""All-gather with exact gradients: the loss of all processes' vectors is that of one big batch.

Every process computes the same loss of the same gathered vectors. Backward, each takes R times what that loss asks of
its own rows and leaves the others' to them; weights that all of them applied to the whole batch, such as a projection,
have the whole gradient everywhere. The mean over processes of all gradients is then exactly that of the one big batch.

Shapes: N rows, n of them this process's own, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SumOverRanks = Callable[[Tensor], None]


class _Gather(torch.autograd.Function):
    """(n, D) -> (N, D); the sum with the others' rows, each of which is zero elsewhere, is exact."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, rows: Tensor, num_rows: int, *ranks: Any) -> Tensor:
        size, add = ranks
        ctx.save_for_backward(rows)
        ctx.size = size
        whole_ND = own_ND.new_zeros(num_rows, *own_ND.shape[1:])
        whole_ND[rows] = own_ND
        add(whole_ND)
        return whole_ND

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (rows,) = ctx.saved_tensors
        return ctx.size * gradients[0][rows], None, None, None, None


class _Sum(torch.autograd.Function):
    """Sum of every process's scalar."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, size: int, add: SumOverRanks) -> Tensor:
        ctx.size = size
        total = own.clone()
        add(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.size * gradients[0], None, None


def gather_rows(own_ND: Tensor, dealt: Sequence[Sequence[int]], rank: int, add: SumOverRanks) -> Tensor:
    """The rows of all processes in their order, (N, D).

    Args:
        own_ND: (n, D), in the order of `dealt[rank]`.
        dealt: the rows that each process holds; together 0 to N - 1, each once.
        rank: of this process.
        add: replaces a tensor by its sum over all processes, the same on each.
    """
    rows = torch.tensor(dealt[rank], dtype=torch.long).to(own_ND.device)
    gathered: Tensor = _Gather.apply(own_ND, rows, sum(map(len, dealt)), len(dealt), add)  # type: ignore[no-untyped-call]
    return gathered


def sum_of_all(own: Tensor, size: int, add: SumOverRanks) -> Tensor:
    """Sum over all `size` processes of a scalar that each computed a part of, of one type on all of them."""
    if not own.requires_grad:  # the part of this process is empty; the sum has a gradient all the same
        own = own.detach().requires_grad_()
    total: Tensor = _Sum.apply(own, size, add)  # type: ignore[no-untyped-call]
    return total
