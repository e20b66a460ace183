"""Feature terms: student vectors are pulled to teacher vectors.

Shapes: B pairs, E dimensions (the student's vectors after any projection).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F
from torch import Tensor

from mlkd.losses.pair_vectors import PairVectors


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
class FeatureTerm:
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

    def __call__(self, vectors: PairVectors, projected_source_BE: Tensor, projected_target_BE: Tensor) -> Tensor:
        target_BE = vectors.teacher_source_BE if self.target is FeatureTarget.source else vectors.teacher_target_BE
        assert target_BE is not None, "preflight provides teacher vectors of both sides for target=own"
        translation = distance(projected_target_BE, target_BE, self.distance)
        if self.sides is FeatureSides.translation:
            return translation
        return distance(projected_source_BE, vectors.teacher_source_BE, self.distance) + translation
