"""Pair vectors: what every loss sees of one batch of sentence pairs, the student's and the teacher's.

Shapes: B pairs, D student dimensions, E teacher dimensions, W dimensions before the student's last
dense layer, K mined negatives, Q further teacher vectors. x is the source sentence, y its translation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

PADDING_ID = -1  # as a negative's id: padding, no negative of any pair


@dataclass(frozen=True, slots=True, kw_only=True)
class PairVectors:
    """Vectors of B translation pairs, and of their further negatives.

    An id is the number of a source text: a negative with the id of a pair shares that pair's source text, so it is
    none of its negatives. The optional fields are there where the loss asks for them; see LossMix.

    Args:
        student_source_BD: S(x).
        student_target_BD: S(y).
        teacher_source_BE: T(x).
        teacher_target_BE: T(y); None unless a term asks for the teacher on each side itself.
        source_ids_B: int64; equal numbers mean the same source text, so such pairs are no negatives of each other.
        student_source_second_pass_BD: S(x) under another dropout mask (SimCSE).
        student_source_pre_projection_BW: what the student's last dense layer turned into S(x), for distillation-first.
        student_target_pre_projection_BW: the same of y.
        student_negatives_KD: S of mined hard negatives; each is a negative of every pair of another source text.
        student_negative_ids_K: int64, whose translation or source each one is, or PADDING_ID.
        teacher_negatives_QE: T of source texts outside of the batch: mined ones, a queue, a draw from the cache.
        teacher_negative_ids_Q: int64, their ids, or PADDING_ID.
    """

    student_source_BD: Tensor
    student_target_BD: Tensor
    teacher_source_BE: Tensor
    teacher_target_BE: Tensor | None
    source_ids_B: Tensor
    student_source_second_pass_BD: Tensor | None = None
    student_source_pre_projection_BW: Tensor | None = None
    student_target_pre_projection_BW: Tensor | None = None
    student_negatives_KD: Tensor | None = None
    student_negative_ids_K: Tensor | None = None
    teacher_negatives_QE: Tensor | None = None
    teacher_negative_ids_Q: Tensor | None = None

    @property
    def student_vectors(self) -> list[Tensor]:
        """Every student tensor that a loss may depend on; what gradient shares are measured at."""
        fields = (
            self.student_source_BD,
            self.student_target_BD,
            self.student_source_second_pass_BD,
            self.student_source_pre_projection_BW,
            self.student_target_pre_projection_BW,
            self.student_negatives_KD,
        )
        return [tensor for tensor in fields if tensor is not None]
