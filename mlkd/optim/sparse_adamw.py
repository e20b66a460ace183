"""AdamW for the embedding rows of a batch alone.

Shapes: V pieces, R rows in the batch, H hidden dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


class SparseAdamW:
    """AdamW over embedding rows, each updated only by steps whose batch holds it.

    It differs from AdamW on the whole weight in rows that a batch lacks: there AdamW goes on moving them by their old
    momentum and decays them; here they stand still, and their moments are not decayed either. Bias correction counts
    all steps in both. (As torch.optim.SparseAdam, with decoupled weight decay.)

    Args:
        weight: (V, H), changed in place.
        betas: of the first and second moment.
        eps: of AdamW.
        weight_decay: times the learning rate, off the rows of the batch.
    """

    def __init__(self, weight: Tensor, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        self.weight = weight
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.num_steps = torch.zeros((), dtype=torch.int64)
        self.moment_VH = torch.zeros_like(weight)
        self.square_VH = torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, rows_R: Tensor, gradient_RH: Tensor, lr: float) -> None:
        """One update of `rows_R` (distinct)."""
        self.num_steps += 1
        count = int(self.num_steps)
        beta1, beta2 = self.betas
        moment_RH = self.moment_VH[rows_R].mul_(beta1).add_(gradient_RH, alpha=1 - beta1)
        square_RH = self.square_VH[rows_R].mul_(beta2).addcmul_(gradient_RH, gradient_RH, value=1 - beta2)
        self.moment_VH[rows_R] = moment_RH
        self.square_VH[rows_R] = square_RH
        scale_RH = (square_RH / (1 - beta2**count)).sqrt_().add_(self.eps)
        values_RH = self.weight[rows_R] * (1 - lr * self.weight_decay)
        self.weight[rows_R] = values_RH.addcdiv_(moment_RH, scale_RH, value=-lr / (1 - beta1**count))

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors."""
        return {"num_steps": self.num_steps, "moment": self.moment_VH, "square": self.square_VH}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.num_steps.copy_(tensors["num_steps"])
        self.moment_VH.copy_(tensors["moment"])
        self.square_VH.copy_(tensors["square"])


def coalesce(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Sum gradients (rows (R,), gradient (R, H)) of several batches over their distinct rows."""
    if len(parts) == 1:
        return parts[0]
    rows, place = torch.unique(torch.cat([rows for rows, _ in parts]), return_inverse=True)
    total = torch.zeros(len(rows), parts[0][1].shape[1], dtype=parts[0][1].dtype, device=parts[0][1].device)
    return rows, total.index_add_(0, place, torch.cat([gradient for _, gradient in parts]))
