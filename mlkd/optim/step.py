"""The optimiser step: gradients are clipped by their global norm and applied, or nothing moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlkd.optim.adamw import set_learning_rate
from mlkd.optim.sparse_adamw import SparseAdamW, coalesce


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    sparse_adamw: SparseAdamW | None,
    sparse_gradients: Sequence[tuple[Tensor, Tensor]],
    *,
    lr: float,
    embedding_lr: float,
    clip_norm: float | None,
) -> bool:
    """Clip and apply gradients, dense and sparse ones together.

    Args:
        optimizer: of the dense gradients, which stand in its parameters.
        sparse_adamw: of the token embedding, None where it is among the dense ones.
        sparse_gradients: rows (R,) of the token embedding and their gradients (R, H).
        lr: of this step; each parameter group has a factor of its own.
        embedding_lr: of the token embedding's rows.
        clip_norm: gradients are scaled down to this global norm; None clips nothing.

    Returns:
        Whether they were applied: a norm that is not finite moves nothing.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    merged = coalesce(list(sparse_gradients)) if sparse_gradients else None
    if merged is not None:
        gradients.append(merged[1])
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        return False
    if clip_norm is not None:
        torch._foreach_mul_(gradients, torch.clamp(clip_norm / (norm + 1e-6), max=1.0))
    set_learning_rate(optimizer, lr)
    optimizer.step()
    if merged is not None and sparse_adamw is not None:
        sparse_adamw.step(*merged, embedding_lr)
    return True
