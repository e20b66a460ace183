"""InfoNCE (multiple negatives ranking loss), and SimCSE by its candidates.

Shapes: R rows of a batch of pairs, C columns, their positives and further negatives; D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlkd.errors import Problem, out_of_range
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.ranking.negatives import Candidates
from mlkd.losses.similarity_matrices import (
    masked_cross_entropy,
)


@dataclass(kw_only=True, slots=True)
class InfoNceRanking(RankingTerm):
    """InfoNCE: -log softmax of scale * cosine at the true positive, the mean of two directions.

    candidates=teacher: each student vector, of x and of y, must find T(x) among the batch's teacher vectors.
    candidates=student: x must find y and y must find x among the batch's student vectors.
    candidates=both: the sum of these two.
    candidates=dropout: x must find itself under another dropout mask, one direction.

    Source: van den Oord et al. 2018, eq. 4; Gao et al. 2021, eq. 4.

    Args:
        scale: factor on cosines before the softmax; 1 / temperature, > 0.
    """

    candidates: Candidates = Candidates.teacher
    scale: float = 20.0

    def range_problems(self) -> list[Problem]:
        return [*RankingTerm.range_problems(self), *out_of_range(self, "scale", gt=0)]

    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        return masked_cross_entropy(self.scale * similarity_RC, excluded_RC, first)
