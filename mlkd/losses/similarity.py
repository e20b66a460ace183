"""Similarity terms: the student's cosine matrix must look like the teacher's.

Shapes: B pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlkd.losses.ranking import cosine_matrix
from mlkd.losses.vectors import PairVectors


@dataclass(kw_only=True, slots=True)
class SimilarityTerm:
    """Logit distillation: (1/B^2) sum_ij ((cos(T(x_i), T(y_j)) - cos(S(x_i), S(y_j))) / temperature)^2.

    At LEALLA's temperature 100 the value is at most (2/100)^2, which beside AMS moves nothing; the log shows it.

    Source: LEALLA (Mao & Nakagawa 2023, eq. 4).
    """

    def __call__(self, vectors: PairVectors, temperature: float) -> Tensor:
        assert vectors.teacher_target_BE is not None, "preflight provides teacher vectors of both sides"
        teacher_BB = cosine_matrix(vectors.teacher_source_BE, vectors.teacher_target_BE)
        student_BB = cosine_matrix(vectors.student_source_BD, vectors.student_target_BD)
        return ((teacher_BB - student_BB) / temperature).square().mean()
