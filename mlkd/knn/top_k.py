"""Top K of each row of a matrix: largest entries, the lowest column first among equals.

Shapes: R rows, C columns, K entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 32


def top_of_rows(matrix_RC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K largest entries of each row.

    A first pass takes the maximum of every 32 columns: the top K lie in the K chunks with the largest maxima (an entry
    elsewhere has K maxima before it), so that sorting sees 32 K columns instead of C. Rows need not be contiguous; a
    transposed matrix costs about the same.

    Args:
        matrix_RC: finite values.
        k: at most C.

    Returns:
        values (R, K), descending, and columns (R, K), ascending among equal values.

    >>> top_of_rows(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 2)
    (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    num_columns = matrix_RC.shape[1]
    if num_columns < 4 * k * _CHUNK:
        return _sorted_top(matrix_RC, k)
    whole = num_columns // _CHUNK * _CHUNK
    maxima = [matrix_RC[:, :whole].view(len(matrix_RC), -1, _CHUNK).amax(dim=2)]
    if whole < num_columns:
        maxima.append(matrix_RC[:, whole:].amax(dim=1, keepdim=True))
    chunks_RK = _sorted_top(torch.cat(maxima, dim=1), k)[1].sort(dim=1).values
    columns = (chunks_RK[:, :, None] * _CHUNK + torch.arange(_CHUNK, device=matrix_RC.device)).flatten(1)
    # The last chunk may be short: what is beyond it reads the last column and is then put out of the running.
    values = matrix_RC.gather(1, columns.clamp(max=num_columns - 1))
    values = values.masked_fill(columns >= num_columns, -torch.inf)
    top, places = _sorted_top(values, k)
    return top, columns.gather(1, places)


class StreamingTopK:
    """The best K columns of each row of a matrix that comes in blocks, columns in ascending order.

    Args:
        num_rows: of the whole matrix.
        k: at most the number of columns of the whole matrix.
        device: of the blocks.
    """

    def __init__(self, num_rows: int, k: int, device: torch.device) -> None:
        self.similarity = torch.full((num_rows, k), -torch.inf, device=device)
        self.index = torch.full((num_rows, k), -1, dtype=torch.int64, device=device)

    def add(self, rows: slice, first_column: int, block_RC: Tensor) -> None:
        """Take in float32 values of these rows in columns from `first_column` on."""
        similarity, index = top_of_rows(block_RC, min(self.index.shape[1], block_RC.shape[1]))
        merged = torch.cat([self.similarity[rows], similarity], dim=1)
        columns = torch.cat([self.index[rows], index + first_column], dim=1)
        # Earlier columns stand first, so a stable sort gives equal similarities to the lowest index.
        order = merged.sort(dim=1, descending=True, stable=True).indices[:, : self.index.shape[1]]
        self.similarity[rows] = merged.gather(1, order)
        self.index[rows] = columns.gather(1, order)


def order_ties(values: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of both reordered: descending by value, ascending by column among equals."""
    by_column = columns.argsort(dim=1)
    values, columns = values.gather(1, by_column), columns.gather(1, by_column)
    by_value = values.sort(dim=1, descending=True, stable=True)
    return by_value.values, columns.gather(1, by_value.indices)


def _sorted_top(matrix_RC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`topk` picks any of several equal columns; rows where that matters, at the last place, are sorted whole."""
    values, columns = order_ties(*matrix_RC.topk(min(k + 1, matrix_RC.shape[1]), dim=1))
    if values.shape[1] == k:
        return values, columns
    tied = (values[:, k] == values[:, k - 1]).nonzero().squeeze(1)
    values, columns = values[:, :k].clone(), columns[:, :k].clone()
    if len(tied) > 0:
        whole = matrix_RC[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = whole.values[:, :k], whole.indices[:, :k]
    return values, columns
