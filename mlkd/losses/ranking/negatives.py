"""Negatives of a ranking term: which candidates there are, and which of them are negatives of which pair.

Shapes: B pairs, R of their rows, C = B + K columns, K further negatives, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from mlkd.losses.pair_vectors import PADDING_ID


class Candidates(Enum):
    """Among which vectors a student vector must find its positive."""

    student = "student"  # the other side's student vectors of the batch
    teacher = "teacher"  # the batch's teacher vectors of the sources
    both = "both"  # the sum of the two objectives
    dropout = "dropout"  # the sources' student vectors under another dropout mask (SimCSE, Gao et al. 2021, eq. 4)


class NegativePool(Enum):
    """Where further teacher vectors come from."""

    queue = "queue"  # the sources of the batches before this one
    cache = "cache"  # drawn from all sources


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a ranking: row i must find positive i among all positives and further negatives.

    Args:
        rows_BD: of the pairs.
        positives_BD: of the pairs; in-batch negatives of each other.
        negatives_KD: further columns, or None.
        negative_ids_K: their ids, or None.
        in_batch_similarity_BB: similarities of rows and positives where they are known already.
    """

    rows_BD: Tensor
    positives_BD: Tensor
    negatives_KD: Tensor | None
    negative_ids_K: Tensor | None
    in_batch_similarity_BB: Tensor | None = None

    @property
    def num_rows(self) -> int:
        return len(self.rows_BD)

    @property
    def num_columns(self) -> int:
        return len(self.positives_BD) + (0 if self.negatives_KD is None else len(self.negatives_KD))


def same_source_mask(source_ids_B: Tensor, rows: slice = slice(None)) -> Tensor:
    """False negatives in the batch, bool (R, B): True where another pair shares the source text.

    >>> same_source_mask(torch.tensor([4, 7, 4])).int().tolist()
    [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    same_RB = source_ids_B[rows, None] == source_ids_B[None, :]
    same_RB[:, rows].fill_diagonal_(False)
    return same_RB


def false_negative_mask(source_ids_B: Tensor, negative_ids_K: Tensor, rows: slice = slice(None)) -> Tensor:
    """False negatives among further ones, bool (R, K): True where a negative is the pair's own text, or padding.

    >>> false_negative_mask(torch.tensor([4, 7]), torch.tensor([7, 9, PADDING_ID])).int().tolist()
    [[0, 0, 1], [1, 0, 1]]
    """
    return (source_ids_B[rows, None] == negative_ids_K[None, :]) | (negative_ids_K[None, :] == PADDING_ID)


def excluded_candidates(
    source_ids_B: Tensor, negative_ids_K: Tensor | None, rows: slice, *, mask_same_source: bool
) -> Tensor | None:
    """Candidates that are neither positive nor negative, bool (R, C); None where there are none.

    Args:
        source_ids_B: of the pairs.
        negative_ids_K: of the further negatives, None for none.
        rows: the pairs R.
        mask_same_source: whether pairs of one source text are no negatives of each other.
    """
    in_batch_RB = same_source_mask(source_ids_B, rows) if mask_same_source else None
    if negative_ids_K is None:
        return in_batch_RB
    further_RK = false_negative_mask(source_ids_B, negative_ids_K, rows)
    if in_batch_RB is None:
        in_batch_RB = further_RK.new_zeros(len(further_RK), len(source_ids_B))
    return torch.cat([in_batch_RB, further_RK], dim=1)
