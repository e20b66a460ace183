"""The batch of all devices: vectors are gathered with exact gradients, so that a loss is that of one big batch.

Shapes: B pairs on each of R ranks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mlkd.losses.vectors import PairVectors


class _AllGather(torch.autograd.Function):
    """Concatenation over ranks (B, ...) -> (R * B, ...); backward sums what all ranks' losses ask of the own rows.

    A gather that keeps the local gradient alone loses what the other ranks' losses owe to these rows.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        ctx.num_rows = len(own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.num_rows
        return total[first : first + ctx.num_rows]


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(own: Tensor) -> Tensor:
    """Rows of all ranks in the order of ranks, with gradients to each rank's own; the same number on every rank.

    Where every rank computes the same loss of these rows, as MixLoss does, gradients sum to R times the loss's: the
    mean over ranks that data-parallel training takes is then exactly the gradient of the one big batch.
    """
    gathered: Tensor = _AllGather.apply(own)  # type: ignore[no-untyped-call]
    return gathered


def gather_vectors(vectors: PairVectors) -> PairVectors:
    """The PairVectors of the global batch; the same object where there is one process.

    Each rank must hold as many pairs, and as many negatives (filled up with NOBODY), as the others.
    """
    if not is_distributed():
        return vectors
    gathered = {
        field.name: gather_rows(value)
        for field in dataclasses.fields(vectors)
        if (value := getattr(vectors, field.name)) is not None
    }
    return dataclasses.replace(vectors, **gathered)
