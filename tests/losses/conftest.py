"""Random batches of vectors in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from mlkd.losses.vectors import PairVectors


def random_vectors(
    num_pairs: int = 5,
    student_dimension: int = 4,
    teacher_dimension: int = 4,
    *,
    seed: int = 0,
    source_ids: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> PairVectors:
    generator = torch.Generator().manual_seed(seed)
    sides = [student_dimension, student_dimension, teacher_dimension, teacher_dimension]
    student_x, student_y, teacher_x, teacher_y = (
        torch.randn(num_pairs, d, generator=generator, dtype=torch.float64).to(dtype) for d in sides
    )
    return PairVectors(
        student_source_BD=student_x,
        student_target_BD=student_y,
        teacher_source_BE=teacher_x,
        teacher_target_BE=teacher_y,
        source_ids_B=torch.arange(num_pairs) if source_ids is None else torch.tensor(source_ids),
    )


@pytest.fixture
def vectors() -> Callable[..., PairVectors]:
    return random_vectors
