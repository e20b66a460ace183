"""What every loss sees: the student's and the teacher's vectors of one batch of sentence pairs.

Shapes: B pairs, D student dimensions, E teacher dimensions. x is the source sentence, y its translation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PairVectors:
    """Vectors of B translation pairs.

    Args:
        student_source_BD: S(x).
        student_target_BD: S(y).
        teacher_source_BE: T(x).
        teacher_target_BE: T(y); None unless a term asks for the teacher on each side itself.
        source_ids_B: int64; equal numbers mean the same source text, so such pairs are no negatives of each other.
    """

    student_source_BD: Tensor
    student_target_BD: Tensor
    teacher_source_BE: Tensor
    teacher_target_BE: Tensor | None
    source_ids_B: Tensor

    def same_source(self) -> Tensor:
        """bool (B, B): True off the diagonal where two pairs share their source text."""
        same_BB = self.source_ids_B[:, None] == self.source_ids_B[None, :]
        same_BB.fill_diagonal_(False)
        return same_BB
