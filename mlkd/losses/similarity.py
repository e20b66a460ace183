"""Similarity terms: the student's cosine matrix must look like the teacher's.

Shapes: B pairs, R of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial

from torch import Tensor

from mlkd.losses.feature import FeatureTarget
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.similarity_matrices import cosine_matrix, in_row_blocks
from mlkd.losses.term import LossTerm, TermContext, TermFunction


class SimilarityDistance(Enum):
    """How the two matrices are compared."""

    squared = "squared"  # squared difference of the cosines over the temperature, mean over the matrix
    kl = "kl"  # KL divergence of the rows' softmaxes of cosines over the temperature, mean over rows


@dataclass(kw_only=True, slots=True)
class SimilarityTerm(LossTerm):
    """Logit distillation, of c_ij = cos(x_i, y_j).

    target=own: the teacher's c_ij is cos(T(x_i), T(y_j)), as LEALLA has it. target=source: cos(T(x_i), T(x_j)), for a
    teacher that does not read the translations' languages.

    distance=squared: (1/B^2) sum_ij ((c_ij of the teacher - c_ij of the student) / temperature)^2, LEALLA's LD (Mao &
    Nakagawa 2023, eq. 4). At its temperature 100 the value is at most (2/100)^2, which beside AMS moves nothing; the
    log shows it.
    distance=kl: (1/B) sum_i sum_j p_ij log(p_ij / q_ij), where p_i and q_i are the softmaxes over j of c_ij /
    temperature, of the teacher and of the student (Hinton et al. 2015, section 2, without its factor temperature^2).
    """

    distance: SimilarityDistance = SimilarityDistance.squared
    target: FeatureTarget = FeatureTarget.own

    def build(self, context: TermContext) -> TermFunction:
        return partial(self, temperature=context.temperature)

    @property
    def needs_teacher_target(self) -> bool:
        return self.target is FeatureTarget.own

    def __call__(self, vectors: PairVectors, temperature: float) -> Tensor:
        num_pairs = len(vectors.source_ids_B)
        return in_row_blocks(partial(self.loss_of_rows, vectors, temperature), num_pairs, num_pairs)

    def loss_of_rows(self, vectors: PairVectors, temperature: float, first: int, last: int) -> Tensor:
        """Mean over the rows from `first` to before `last`."""
        columns_BE = vectors.teacher_source_BE if self.target is FeatureTarget.source else vectors.teacher_target_BE
        assert columns_BE is not None, "preflight provides teacher vectors of both sides for target=own"
        teacher_RB = cosine_matrix(vectors.teacher_source_BE[first:last], columns_BE)
        student_RB = cosine_matrix(vectors.student_source_BD[first:last], vectors.student_target_BD)
        if self.distance is SimilarityDistance.squared:
            return ((teacher_RB - student_RB) / temperature).square().mean()
        teacher_log_RB = (teacher_RB / temperature).log_softmax(dim=1)
        student_log_RB = (student_RB / temperature).log_softmax(dim=1)
        return (teacher_log_RB.exp() * (teacher_log_RB - student_log_RB)).sum(dim=1).mean()
