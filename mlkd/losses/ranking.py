"""Ranking terms: a sentence must prefer its own translation to every other one in the batch.

Shapes: B pairs, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.errors import MlkdError, Problem
from mlkd.losses.vectors import PairVectors


class Against(Enum):
    """What a student vector is ranked against."""

    student = "student"  # the other side's student vectors of the batch
    teacher = "teacher"  # the batch's teacher vectors of the sources
    both = "both"  # the sum of the two objectives


def cosine_matrix(rows_BD: Tensor, columns_BD: Tensor) -> Tensor:
    """Cosine of every row with every column vector, (B, B).

    >>> cosine_matrix(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0], [5.0, 0.0]])).tolist()
    [[0.0, 1.0]]
    """
    return F.normalize(rows_BD, dim=1) @ F.normalize(columns_BD, dim=1).T


def masked_cross_entropy(logits_BB: Tensor, excluded_BB: Tensor | None) -> Tensor:
    """Mean over rows of -log softmax at the diagonal; excluded entries leave the denominator."""
    if excluded_BB is not None:
        logits_BB = logits_BB.masked_fill(excluded_BB, float("-inf"))
    return F.cross_entropy(logits_BB, torch.arange(len(logits_BB), device=logits_BB.device))


@dataclass(kw_only=True, slots=True)
class RankingTerm(ABC):
    """A ranking objective.

    Args:
        scale: factor on cosines before the softmax; 1 / temperature.
        mask_same_source: leave pairs that share their source text out of each other's negatives.
    """

    scale: float = 20.0
    mask_same_source: bool = True

    def __post_init__(self) -> None:
        problems = self.range_problems()
        if problems:
            raise MlkdError(problems)

    def range_problems(self) -> list[Problem]:
        return [] if self.scale > 0 else [Problem("E204", f"must be > 0 (got {self.scale})", "scale")]

    @abstractmethod
    def __call__(self, vectors: PairVectors) -> Tensor:
        """The term's raw value, a scalar."""

    def excluded(self, vectors: PairVectors) -> Tensor | None:
        return vectors.same_source() if self.mask_same_source else None


@dataclass(kw_only=True, slots=True)
class AmsRanking(RankingTerm):
    """Additive margin softmax in both directions, summed.

    logits_ij = scale * (cos(x_i, y_j) - margin * [i = j]); cross-entropy over rows plus over columns.
    LaBSE trains with scale 100 and margin 0.3; scale 1 is the printed formula. Neither masks repeated sources.

    Source: LaBSE (Feng et al. 2022, eq. 1-3), LEALLA (Mao & Nakagawa 2023, eq. 1-2).
    """

    margin: float = 0.3
    scale: float = 100.0
    mask_same_source: bool = False

    def range_problems(self) -> list[Problem]:
        problems = RankingTerm.range_problems(self)
        if not self.margin >= 0:
            problems.append(Problem("E204", f"must be >= 0 (got {self.margin})", "margin"))
        return problems

    def __call__(self, vectors: PairVectors) -> Tensor:
        cosine_BB = cosine_matrix(vectors.student_source_BD, vectors.student_target_BD)
        margin_BB = self.margin * torch.eye(len(cosine_BB), device=cosine_BB.device, dtype=cosine_BB.dtype)
        logits_BB = self.scale * (cosine_BB - margin_BB)
        excluded = self.excluded(vectors)
        return masked_cross_entropy(logits_BB, excluded) + masked_cross_entropy(logits_BB.T, excluded)


@dataclass(kw_only=True, slots=True)
class InfoNceRanking(RankingTerm):
    """InfoNCE: -log softmax of scale * cosine at the true partner, the mean of two directions.

    against=teacher: each student vector, of x and of y, must find T(x) among the batch's teacher vectors.
    against=student: x must find y and y must find x among the batch's student vectors.
    against=both: the sum of these two.

    Source: van den Oord et al. 2018, eq. 4; temperature = 1 / scale.
    """

    against: Against = Against.teacher

    def __call__(self, vectors: PairVectors) -> Tensor:
        source_BD, target_BD = vectors.student_source_BD, vectors.student_target_BD
        excluded = self.excluded(vectors)
        directions = []
        if self.against is not Against.student:
            teacher_BE = vectors.teacher_source_BE
            directions += [cosine_matrix(source_BD, teacher_BE), cosine_matrix(target_BD, teacher_BE)]
        if self.against is not Against.teacher:
            cosine_BB = cosine_matrix(source_BD, target_BD)
            directions += [cosine_BB, cosine_BB.T]
        return 0.5 * torch.stack([masked_cross_entropy(self.scale * d, excluded) for d in directions]).sum()
