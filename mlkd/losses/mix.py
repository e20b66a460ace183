"""The mix of three terms: alpha * ranking + beta * feature + gamma * similarity.

Shapes: B pairs, D student dimensions, E teacher dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mlkd.errors import MlkdError, Problem
from mlkd.losses.feature import FeatureTarget, FeatureTerm, Projection
from mlkd.losses.ranking import Against, InfoNceRanking, RankingTerm
from mlkd.losses.similarity import SimilarityTerm
from mlkd.losses.vectors import PairVectors


@dataclass(kw_only=True, slots=True)
class LossMix:
    """L = alpha * ranking + beta * feature + gamma * similarity (LEALLA, Mao & Nakagawa 2023, eq. 5).

    A term with weight 0 is not computed. Reimers & Gurevych 2020 is (0, 1, 0), LaBSE (1, 0, 0), LEALLA (1, 1e3, 1e-2).

    Args:
        alpha: weight of the ranking term, >= 0.
        beta: weight of the feature term, >= 0.
        gamma: weight of the similarity term, >= 0.
        ranking: the ranking objective; required where alpha > 0.
        temperature: divides the cosine differences of the similarity term (LEALLA's T), > 0.
    """

    alpha: float = 0.0
    beta: float = 1.0
    gamma: float = 0.0
    temperature: float = 100.0
    ranking: RankingTerm | None = None
    feature: FeatureTerm = field(default_factory=FeatureTerm)
    similarity: SimilarityTerm = field(default_factory=SimilarityTerm)

    def __post_init__(self) -> None:
        weights = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        problems = [Problem("E204", f"must be >= 0 (got {w})", name) for name, w in weights.items() if not w >= 0]
        if not any(w > 0 for w in weights.values()):
            problems.append(Problem("E204", "at least one of alpha, beta, gamma must be > 0"))
        if self.alpha > 0 and self.ranking is None:
            problems.append(Problem("E205", "is required for alpha > 0. Example: loss/ranking=info_nce", "ranking"))
        if not self.temperature > 0:
            problems.append(Problem("E204", f"must be > 0 (got {self.temperature})", "temperature"))
        if problems:
            raise MlkdError(problems)

    @property
    def needs_teacher_target(self) -> bool:
        """Whether the teacher must encode the translations too."""
        return self.gamma > 0 or (self.beta > 0 and self.feature.target is FeatureTarget.own)

    @property
    def compares_dimensions(self) -> bool:
        """Whether student and teacher vectors meet without a projection, so that their dimensions must agree."""
        direct_feature = self.beta > 0 and self.feature.projection is Projection.none
        against_teacher = isinstance(self.ranking, InfoNceRanking) and self.ranking.against is not Against.student
        return direct_feature or (self.alpha > 0 and against_teacher)

    def build(self, student_dimension: int, teacher_dimension: int) -> MixLoss:
        """The loss as a module; it holds the trainable projection, if there is one."""
        needs_dense = self.beta > 0 and self.feature.projection is Projection.dense
        return MixLoss(self, nn.Linear(student_dimension, teacher_dimension) if needs_dense else None)


@dataclass(frozen=True, slots=True)
class LossValues:
    """The weighted sum and, per term with a weight, the raw and the weighted scalar."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]


class MixLoss(nn.Module):
    """Computes a LossMix; knows vectors only, no model."""

    def __init__(self, mix: LossMix, projection: nn.Linear | None) -> None:
        super().__init__()
        self.mix = mix
        self.projection = projection

    def forward(self, vectors: PairVectors) -> LossValues:
        """The mix for one batch of `PairVectors`."""
        mix = self.mix
        raw: dict[str, Tensor] = {}
        weights = {"ranking": mix.alpha, "feature": mix.beta, "similarity": mix.gamma}
        if mix.alpha > 0 and mix.ranking is not None:
            raw["ranking"] = mix.ranking(vectors)
        if mix.beta > 0:
            raw["feature"] = mix.feature(
                vectors, self.project(vectors.student_source_BD), self.project(vectors.student_target_BD)
            )
        if mix.gamma > 0:
            raw["similarity"] = mix.similarity(vectors, mix.temperature)
        weighted = {name: weights[name] * value for name, value in raw.items()}
        return LossValues(total=torch.stack(list(weighted.values())).sum(), raw=raw, weighted=weighted)

    def project(self, vectors_BD: Tensor) -> Tensor:
        """(B, D) -> (B, E) where the feature term has a projection, else unchanged."""
        return vectors_BD if self.projection is None else self.projection(vectors_BD)


def gradient_shares(values: LossValues, student_vectors: list[Tensor]) -> dict[str, float]:
    """Share of each weighted term in the gradient at the student's vectors, by norm; shares sum to 1.

    Args:
        values: of a forward pass whose graph is still alive.
        student_vectors: the tensors (B, D) that the loss was computed from.
    """
    norms: dict[str, float] = {}
    for name, value in values.weighted.items():
        gradients = torch.autograd.grad(value, student_vectors, retain_graph=True, allow_unused=True)
        norms[name] = float(sum(g.square().sum() for g in gradients if g is not None) ** 0.5)
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}
