"""Triplet loss: a margin between a positive and a negative.

Shapes: R rows of a batch of pairs, C columns, their positives and further negatives; D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from mlkd.errors import Problem, out_of_range
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.similarity_matrices import (
    cosine_matrix,
    distance_matrix,
    positive_columns,
    positive_mask,
)


class TripletMeasure(Enum):
    """What a triplet compares."""

    cosine = "cosine"  # similarities
    euclidean = "euclidean"  # distances; similarities with the sign swapped


@dataclass(kw_only=True, slots=True)
class TripletRanking(RankingTerm):
    """max(0, s_ik - s_ij + margin) over the negatives k of pair i with positive j, the mean of two directions.

    With distances d the same is max(0, d_ij - d_ik + margin).

    Source: FaceNet (Schroff et al. 2015, eq. 3), whose squared distances of unit vectors are 2 - 2 cos, so that its
    margin 0.2 is 0.1 here; distances and margin 1 in Sentence-BERT (Reimers & Gurevych 2019, section 3); cosines,
    margin 0.2 and the hardest negative alone in VSE++ (Faghri et al. 2018, section 2), there summed over negatives.

    Args:
        measure: see TripletMeasure.
        margin: by which a positive must be nearer than a negative, > 0.
        hardest: each row's hardest negative alone; else the mean over its negatives.
    """

    measure: TripletMeasure = TripletMeasure.cosine
    margin: float = 0.2
    hardest: bool = False

    def range_problems(self) -> list[Problem]:
        return [*RankingTerm.range_problems(self), *out_of_range(self, "margin", gt=0)]

    def similarity(self, rows_RD: Tensor, columns_CD: Tensor) -> Tensor:
        if self.measure is TripletMeasure.cosine:
            return cosine_matrix(rows_RD, columns_CD)
        return -distance_matrix(rows_RD, columns_CD)

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        negative_RC = ~positive_mask(first, similarity_RC)
        if excluded_RC is not None:
            negative_RC &= ~excluded_RC
        positive_R1 = similarity_RC.gather(1, positive_columns(first, similarity_RC)[:, None])
        hinge_RC = (similarity_RC - positive_R1 + self.margin).clamp(min=0) * negative_RC
        if self.hardest:
            return hinge_RC.amax(dim=1).mean()
        return (hinge_RC.sum(dim=1) / negative_RC.sum(dim=1).clamp(min=1)).mean()
