"""Additive margin softmax (AMS), the ranking objective of LaBSE and LEALLA.

Shapes: R rows of a batch of pairs, C columns, their positives and further negatives; D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlkd.errors import Problem, out_of_range
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.similarity_matrices import (
    masked_cross_entropy,
    positive_mask,
)


@dataclass(kw_only=True, slots=True)
class AmsRanking(RankingTerm):
    """Additive margin softmax in both directions, summed.

    logits_ij = scale * (cos(x_i, y_j) - margin * [i = j]); cross-entropy over rows plus over columns.
    LaBSE trains with scale 100 and margin 0.3; scale 1 is the printed formula. Neither masks repeated sources.

    Source: LaBSE (Feng et al. 2022, eq. 1-3), LEALLA (Mao & Nakagawa 2023, eq. 1-2).

    Args:
        margin: taken off the positive's cosine, >= 0.
        scale: factor before the softmax, > 0.
    """

    margin: float = 0.3
    scale: float = 100.0
    mask_same_source: bool = False

    def range_problems(self) -> list[Problem]:
        ranges = [*out_of_range(self, "scale", gt=0), *out_of_range(self, "margin", ge=0)]
        return [*RankingTerm.range_problems(self), *ranges]

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        margin_RC = self.margin * positive_mask(first, similarity_RC).to(similarity_RC.dtype)
        return masked_cross_entropy(self.scale * (similarity_RC - margin_RC), excluded_RC, first)

    def joined(self, total: Tensor) -> Tensor:
        return total
