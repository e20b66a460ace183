"""The mix of terms: alpha * ranking + beta * feature + gamma * similarity, and a masked language model beside it.

Shapes: B pairs, D student dimensions, E teacher dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mlkd.errors import MlkdError, Problem
from mlkd.losses.feature import FeatureTarget, FeatureTerm, Projection
from mlkd.losses.gradient_shares import gradient_norms, shares_of
from mlkd.losses.masked_lm import MaskedLanguageTerm
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.base import Candidates, NegativePool, RankingTerm
from mlkd.losses.similarity import SimilarityTerm


@dataclass(kw_only=True, slots=True)
class LossMix:
    """L = alpha * ranking + beta * feature + gamma * similarity + delta * auxiliary.

    The first three are LEALLA's (Mao & Nakagawa 2023, eq. 5), the fourth is LASER3's (Heffernan et al. 2022).
    A term with weight 0 is not computed. Reimers & Gurevych 2020 is (0, 1, 0), LaBSE (1, 0, 0), LEALLA (1, 1e3, 1e-2).

    Args:
        alpha: weight of the ranking term, >= 0.
        beta: weight of the feature term, >= 0.
        gamma: weight of the similarity term, >= 0.
        delta: weight of the masked language model, >= 0; the training loop adds it, as it needs tokens, not vectors.
        ranking: the ranking objective; required where alpha > 0.
        temperature: divides the cosines of the similarity term (LEALLA's T), > 0.
    """

    alpha: float = 0.0
    beta: float = 1.0
    gamma: float = 0.0
    delta: float = 0.0
    temperature: float = 100.0
    ranking: RankingTerm | None = None
    feature: FeatureTerm = field(default_factory=FeatureTerm)
    similarity: SimilarityTerm = field(default_factory=SimilarityTerm)
    auxiliary: MaskedLanguageTerm = field(default_factory=MaskedLanguageTerm)

    def __post_init__(self) -> None:
        weights = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        problems = [
            Problem("E204", f"must be >= 0 (got {w})", name)
            for name, w in {**weights, "delta": self.delta}.items()
            if not w >= 0
        ]
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
        return (self.gamma > 0 and self.similarity.target is FeatureTarget.own) or (
            self.beta > 0 and self.feature.target is FeatureTarget.own
        )

    # What the training loop must put into PairVectors beside the two sides, and compute beside the mix.

    @property
    def active_ranking(self) -> RankingTerm | None:
        """The ranking term where it has a weight."""
        return self.ranking if self.alpha > 0 else None

    @property
    def needs_second_dropout_pass(self) -> bool:
        """Whether the student reads the sources twice, under two dropout masks: `student_source_second_pass_BD`."""
        return self.active_ranking is not None and self.active_ranking.candidates is Candidates.dropout

    @property
    def needs_pre_projection(self) -> bool:
        """Whether the vectors before the student's last dense are wanted: `student_*_wide_BW`, distillation-first."""
        return self.beta > 0 and self.feature.projection is Projection.distillation_first

    @property
    def num_hard_negatives(self) -> int:
        """Mined negatives a pair, as vectors of the encoders among the candidates."""
        return self.active_ranking.hard_negatives if self.active_ranking is not None else 0

    @property
    def has_student_candidates(self) -> bool:
        """Whether mined negatives are wanted as student vectors: `student_negatives_KD`."""
        return self.active_ranking is not None and self.active_ranking.has_student_candidates

    @property
    def has_teacher_candidates(self) -> bool:
        """Whether mined negatives are wanted as teacher vectors: among `teacher_negatives_QE`."""
        return self.active_ranking is not None and self.active_ranking.has_teacher_candidates

    @property
    def num_teacher_negatives(self) -> int:
        """Further source texts whose teacher vectors are negatives of the whole batch; 0 for none."""
        return self.active_ranking.teacher_negatives if self.active_ranking is not None else 0

    @property
    def teacher_negatives_from(self) -> NegativePool:
        """queue: the last source texts before this batch; cache: drawn from all, by seed and batch number."""
        return self.active_ranking.teacher_negatives_from if self.active_ranking is not None else NegativePool.queue

    @property
    def mlm_weight(self) -> float:
        """delta; 0 for no masked language model. Its settings are `auxiliary`."""
        return self.delta

    @property
    def reduces_teacher(self) -> bool:
        """Whether teacher vectors are brought to the student's dimension before the run (synchronized)."""
        return self.beta > 0 and self.feature.projection is Projection.synchronized

    @property
    def compares_dimensions(self) -> bool:
        """Whether student and teacher vectors meet without a projection, so that their dimensions must agree."""
        direct_feature = self.beta > 0 and self.feature.projection in (Projection.none, Projection.synchronized)
        return direct_feature or self.has_teacher_candidates

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

    def plus(self, name: str, raw: Tensor, weight: float) -> LossValues:
        """These values and one more term's."""
        weighted = weight * raw
        return LossValues(self.total + weighted, {**self.raw, name: raw}, {**self.weighted, name: weighted})


class MixLoss(nn.Module):
    """Computes a LossMix; knows vectors only, no model."""

    def __init__(self, mix: LossMix, projection: nn.Linear | None) -> None:
        super().__init__()
        self.mix = mix
        self.projection = projection

    def forward(self, vectors: PairVectors) -> LossValues:
        """The mix for one batch of `PairVectors`; where several processes train, the batch of all of them."""
        mix = self.mix
        raw: dict[str, Tensor] = {}
        weights = {"ranking": mix.alpha, "feature": mix.beta, "similarity": mix.gamma}
        if mix.active_ranking is not None:
            raw["ranking"] = mix.active_ranking(vectors)
        if mix.beta > 0:
            raw["feature"] = mix.feature(vectors, *self.feature_sides(vectors))
        if mix.gamma > 0:
            raw["similarity"] = mix.similarity(vectors, mix.temperature)
        weighted = {name: weights[name] * value for name, value in raw.items()}
        return LossValues(total=torch.stack(list(weighted.values())).sum(), raw=raw, weighted=weighted)

    def feature_sides(self, vectors: PairVectors) -> tuple[Tensor, Tensor]:
        """Source and target side as the feature term compares them, (B, E) each."""
        if self.mix.feature.projection is Projection.distillation_first:
            source_BW, target_BW = vectors.student_source_pre_projection_BW, vectors.student_target_pre_projection_BW
            assert source_BW is not None and target_BW is not None, "the loop provides the vectors of the wide layer"
            return source_BW, target_BW
        return self.project(vectors.student_source_BD), self.project(vectors.student_target_BD)

    def project(self, vectors_BD: Tensor) -> Tensor:
        """(B, D) -> (B, E) where the feature term has a projection, else unchanged."""
        return vectors_BD if self.projection is None else self.projection(vectors_BD)


def gradient_shares(values: LossValues, student_vectors: list[Tensor]) -> dict[str, float]:
    """Share of each weighted term in the gradient at the student's vectors, by norm; shares sum to 1.

    Args:
        values: of a forward pass whose graph is still alive.
        student_vectors: what the loss was computed from, `PairVectors.student_vectors`.
    """
    return shares_of(gradient_norms(values.weighted, student_vectors))
