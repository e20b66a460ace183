"""Ranking terms: a sentence must prefer its own translation to every other one in the batch.

Shapes: R rows of a batch of pairs, C columns, their partners and further negatives; D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from mlkd.errors import Problem
from mlkd.losses.matrices import (
    cosine_matrix,
    distance_matrix,
    masked_cross_entropy,
    partner_columns,
    partner_mask,
)
from mlkd.losses.negatives import Against, RankingTerm


@dataclass(kw_only=True, slots=True)
class AmsRanking(RankingTerm):
    """Additive margin softmax in both directions, summed.

    logits_ij = scale * (cos(x_i, y_j) - margin * [i = j]); cross-entropy over rows plus over columns.
    LaBSE trains with scale 100 and margin 0.3; scale 1 is the printed formula. Neither masks repeated sources.

    Source: LaBSE (Feng et al. 2022, eq. 1-3), LEALLA (Mao & Nakagawa 2023, eq. 1-2).

    Args:
        margin: taken off the partner's cosine, >= 0.
        scale: factor before the softmax, > 0.
    """

    margin: float = 0.3
    scale: float = 100.0
    mask_same_source: bool = False

    def range_problems(self) -> list[Problem]:
        return [*RankingTerm.range_problems(self), *positive(self.scale, "scale"), *not_negative(self.margin, "margin")]

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        margin_RC = self.margin * partner_mask(first, similarity_RC).to(similarity_RC.dtype)
        return masked_cross_entropy(self.scale * (similarity_RC - margin_RC), excluded_RC, first)

    def joined(self, total: Tensor) -> Tensor:
        return total


@dataclass(kw_only=True, slots=True)
class InfoNceRanking(RankingTerm):
    """InfoNCE: -log softmax of scale * cosine at the true partner, the mean of two directions.

    against=teacher: each student vector, of x and of y, must find T(x) among the batch's teacher vectors.
    against=student: x must find y and y must find x among the batch's student vectors.
    against=both: the sum of these two.
    against=dropout: x must find itself under another dropout mask, one direction.

    Source: van den Oord et al. 2018, eq. 4; Gao et al. 2021, eq. 4.

    Args:
        scale: factor on cosines before the softmax; 1 / temperature, > 0.
    """

    against: Against = Against.teacher
    scale: float = 20.0

    def range_problems(self) -> list[Problem]:
        return [*RankingTerm.range_problems(self), *positive(self.scale, "scale")]

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        return masked_cross_entropy(self.scale * similarity_RC, excluded_RC, first)


class TripletMeasure(Enum):
    """What a triplet compares."""

    cosine = "cosine"  # similarities
    euclidean = "euclidean"  # distances; similarities with the sign swapped


@dataclass(kw_only=True, slots=True)
class TripletRanking(RankingTerm):
    """max(0, s_ik - s_ij + margin) over the negatives k of pair i with partner j, the mean of two directions.

    With distances d the same is max(0, d_ij - d_ik + margin).

    Source: FaceNet (Schroff et al. 2015, eq. 3), whose squared distances of unit vectors are 2 - 2 cos, so that its
    margin 0.2 is 0.1 here; distances and margin 1 in Sentence-BERT (Reimers & Gurevych 2019, section 3); cosines,
    margin 0.2 and the hardest negative alone in VSE++ (Faghri et al. 2018, section 2), there summed over negatives.

    Args:
        measure: see TripletMeasure.
        margin: by which a partner must be nearer than a negative, > 0.
        hardest: each row's hardest negative alone; else the mean over its negatives.
    """

    measure: TripletMeasure = TripletMeasure.cosine
    margin: float = 0.2
    hardest: bool = False

    def range_problems(self) -> list[Problem]:
        return [*RankingTerm.range_problems(self), *positive(self.margin, "margin")]

    def similarity(self, rows_RD: Tensor, columns_CD: Tensor) -> Tensor:
        if self.measure is TripletMeasure.cosine:
            return cosine_matrix(rows_RD, columns_CD)
        return -distance_matrix(rows_RD, columns_CD)

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        negative_RC = ~partner_mask(first, similarity_RC)
        if excluded_RC is not None:
            negative_RC &= ~excluded_RC
        partner_R1 = similarity_RC.gather(1, partner_columns(first, similarity_RC)[:, None])
        hinge_RC = (similarity_RC - partner_R1 + self.margin).clamp(min=0) * negative_RC
        if self.hardest:
            return hinge_RC.amax(dim=1).mean()
        return (hinge_RC.sum(dim=1) / negative_RC.sum(dim=1).clamp(min=1)).mean()


def positive(value: float, name: str) -> list[Problem]:
    return [] if value > 0 else [Problem("E204", f"must be > 0 (got {value})", name)]


def not_negative(value: float, name: str) -> list[Problem]:
    return [] if value >= 0 else [Problem("E204", f"must be >= 0 (got {value})", name)]
