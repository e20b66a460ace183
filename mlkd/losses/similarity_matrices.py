"""Matrices of two sets of vectors, and losses of their rows.

Shapes: B rows, whose positives are the first B of C columns; R of these rows; D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_ENTRIES = 2**24  # of a matrix in memory at a time: 64 MiB in float32, a batch of 4,096 pairs


def cosine_matrix(rows_BD: Tensor, columns_CD: Tensor) -> Tensor:
    """Cosine of every row with every column vector, (B, C).

    >>> cosine_matrix(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0]])).tolist()
    [[0.0, 1.0]]
    """
    return F.normalize(rows_BD, dim=1) @ F.normalize(columns_CD, dim=1).T


def distance_matrix(rows_BD: Tensor, columns_CD: Tensor) -> Tensor:
    """Euclidean distance of every row to every column vector, (B, C).

    >>> distance_matrix(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 1.0]])).tolist()
    [[5.0, 1.0]]
    """
    # Through a matrix product small distances lose their digits.
    return torch.cdist(rows_BD, columns_CD, compute_mode="donot_use_mm_for_euclid_dist")


def positive_columns(first: int, matrix_RC: Tensor) -> Tensor:
    """Column of each row's positive, (R,), where the rows are those from `first` on."""
    return torch.arange(first, first + len(matrix_RC), device=matrix_RC.device)


def positive_mask(first: int, matrix_RC: Tensor) -> Tensor:
    """bool (R, C): True at each row's positive."""
    columns_C = torch.arange(matrix_RC.shape[1], device=matrix_RC.device)
    return positive_columns(first, matrix_RC)[:, None] == columns_C[None, :]


def masked_cross_entropy(logits_RC: Tensor, excluded_RC: Tensor | None, first: int = 0) -> Tensor:
    """Mean over rows of -log softmax at the positive; excluded entries leave the denominator."""
    if excluded_RC is not None:
        logits_RC = logits_RC.masked_fill(excluded_RC, float("-inf"))
    return F.cross_entropy(logits_RC, positive_columns(first, logits_RC))


def in_row_blocks(loss_of_rows: Callable[[int, int], Tensor], num_rows: int, num_columns: int) -> Tensor:
    """A mean over rows of a matrix, of which only a block of rows is in memory at a time.

    Small matrices are one block. Blocks are computed a second time for the backward pass, and nothing of them is kept.

    Args:
        loss_of_rows: from the first row and the one after the last row to the mean over these rows.
        num_rows: R of the whole matrix.
        num_columns: C.
    """
    step = max(1, MAX_ENTRIES // num_columns)
    if num_rows <= step:
        return loss_of_rows(0, num_rows)
    parts = []
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        mean = checkpoint(loss_of_rows, first, last, use_reentrant=False, preserve_rng_state=False)
        parts.append(mean * ((last - first) / num_rows))
    return torch.stack(parts).sum()
