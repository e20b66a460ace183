"""Feature terms: student vectors are pulled to teacher vectors.

Shapes: B pairs, D student dimensions, E dimensions of the student's vectors after any projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.term import LossTerm, TermContext, TermFunction


class FeatureTarget(Enum):
    """Which teacher vector a translation is pulled to."""

    source = "source"  # the teacher on the source sentence, for both sides (Reimers & Gurevych 2020)
    own = "own"  # the teacher on each side itself (LEALLA)


class FeatureSides(Enum):
    """Which student vectors are pulled."""

    both = "both"  # of the source sentence and of the translation
    translation = "translation"  # of the translation alone (LASER3)


class FeatureDistance(Enum):
    """How far a student vector is from its target."""

    mse = "mse"  # squared difference, mean over batch and dimensions
    squared_l2 = "squared_l2"  # squared difference, summed over dimensions, mean over the batch
    l2 = "l2"  # Euclidean distance, mean over the batch
    cosine = "cosine"  # 1 - cosine, mean over the batch


class Projection(Enum):
    """How student and teacher vectors come to one dimension."""

    none = "none"
    dense = "dense"  # trainable student -> teacher dimension, dropped at inference (LEALLA eq. 3)
    distillation_first = "distillation_first"  # the student's own layer of teacher dimension, before its last dense
    synchronized = "synchronized"  # the teacher reduced to the student's dimension before the run


def distance(student_BE: Tensor, target_BE: Tensor, kind: FeatureDistance) -> Tensor:
    """Distance of one side's vectors to their targets, a scalar."""
    if kind is FeatureDistance.cosine:
        return (1 - F.cosine_similarity(student_BE, target_BE, dim=1)).mean()
    if kind is FeatureDistance.l2:
        distance_B: Tensor = (student_BE - target_BE).norm(dim=1)
        return distance_B.mean()
    squared_BE = (student_BE - target_BE).square()
    return squared_BE.mean() if kind is FeatureDistance.mse else squared_BE.sum(dim=1).mean()


@dataclass(kw_only=True, slots=True)
class FeatureTerm(LossTerm):
    """Distance of S(x) to its target plus distance of S(y) to its target.

    distance=mse, target=source: mean of (T(x) - S(x))^2 + (T(x) - S(y))^2, Reimers & Gurevych 2020, section 2.
    distance=squared_l2, target=own, projection=dense: LEALLA's FD (Mao & Nakagawa 2023, eq. 3); its appendix C compares
    this with projection=distillation_first and projection=synchronized.
    distance=cosine, sides=translation: LASER3's distillation (Heffernan et al. 2022), there summed over the batch.
    """

    distance: FeatureDistance = FeatureDistance.mse
    target: FeatureTarget = FeatureTarget.source
    sides: FeatureSides = FeatureSides.both
    projection: Projection = Projection.none

    def build(self, context: TermContext) -> TermFunction:
        needs_dense = self.projection is Projection.dense
        dense = nn.Linear(context.student_dimension, context.teacher_dimension) if needs_dense else None
        return FeatureLoss(self, dense)

    @property
    def needs_teacher_target(self) -> bool:
        return self.target is FeatureTarget.own

    @property
    def needs_pre_projection(self) -> bool:
        return self.projection is Projection.distillation_first

    @property
    def compares_dimensions(self) -> bool:
        return self.projection in (Projection.none, Projection.synchronized)

    @property
    def reduces_teacher(self) -> bool:
        return self.projection is Projection.synchronized

    def __call__(self, vectors: PairVectors, projected_source_BE: Tensor, projected_target_BE: Tensor) -> Tensor:
        target_BE = vectors.teacher_source_BE if self.target is FeatureTarget.source else vectors.teacher_target_BE
        assert target_BE is not None, "preflight provides teacher vectors of both sides for target=own"
        translation = distance(projected_target_BE, target_BE, self.distance)
        if self.sides is FeatureSides.translation:
            return translation
        return distance(projected_source_BE, vectors.teacher_source_BE, self.distance) + translation


class FeatureLoss(nn.Module):
    """A feature term with its trainable projection, if there is one.

    Args:
        term: see FeatureTerm.
        projection: from student to teacher dimension; None compares vectors as they are.
    """

    def __init__(self, term: FeatureTerm, projection: nn.Linear | None) -> None:
        super().__init__()
        self.term = term
        self.projection = projection

    def forward(self, vectors: PairVectors) -> Tensor:
        """The raw value, a scalar."""
        return self.term(vectors, *self.sides(vectors))

    def sides(self, vectors: PairVectors) -> tuple[Tensor, Tensor]:
        """Source and target side as the term compares them, (B, E) each."""
        if self.term.needs_pre_projection:
            source_BW, target_BW = vectors.student_source_pre_projection_BW, vectors.student_target_pre_projection_BW
            assert source_BW is not None and target_BW is not None, "the training loop provides pre-projection vectors"
            return source_BW, target_BW
        return self.project(vectors.student_source_BD), self.project(vectors.student_target_BD)

    def project(self, vectors_BD: Tensor) -> Tensor:
        """(B, D) -> (B, E) where there is a projection, else unchanged."""
        return vectors_BD if self.projection is None else self.projection(vectors_BD)
