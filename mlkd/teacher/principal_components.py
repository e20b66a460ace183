"""Principal components of vectors in blocks: for a teacher of fewer dimensions and for the picture of the report.

Shapes: N vectors, E dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class PrincipalComponents(NamedTuple):
    """Directions of largest variance first; float64.

    Args:
        mean_E: of the vectors.
        directions_EE: one a row, orthonormal; signs are such that each direction's largest entry is positive.
        variances_E: along the directions, of N vectors (not N - 1).
    """

    mean_E: Tensor
    directions_EE: Tensor
    variances_E: Tensor


def principal_components(blocks: Iterable[Tensor]) -> PrincipalComponents:
    """By the eigenvectors of the covariance, summed up in double precision.

    Args:
        blocks: (N, E) of any N, at least one; each is read once.
    """
    count, sum_E, squares_EE = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        block_NE = block.double()
        count += len(block_NE)
        sum_E = sum_E + block_NE.sum(dim=0)
        squares_EE = squares_EE + block_NE.T @ block_NE
    mean_E = sum_E / count
    variances_E, columns_EE = torch.linalg.eigh(squares_EE / count - mean_E[:, None] * mean_E[None, :])
    directions_EE = columns_EE.T.flip(0)  # eigenvalues rise
    largest_E1 = directions_EE.abs().argmax(dim=1, keepdim=True)
    signed_EE = directions_EE * directions_EE.gather(1, largest_E1).sign()
    return PrincipalComponents(mean_E, signed_EE, variances_E.flip(0).clamp(min=0))
