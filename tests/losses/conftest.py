"""Random batches of vectors in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from mlkd.losses.pair_vectors import PairVectors


def random_vectors(
    num_pairs: int = 5,
    student_dimension: int = 4,
    teacher_dimension: int = 4,
    *,
    seed: int = 0,
    source_ids: Sequence[int] | None = None,
    negative_ids: Sequence[int] = (),
    teacher_negative_ids: Sequence[int] = (),
    dtype: torch.dtype = torch.float64,
) -> PairVectors:
    """A batch, with negatives where their ids are given; always with second dropout pass and pre-projection."""
    generator = torch.Generator().manual_seed(seed)
    sides = [student_dimension, student_dimension, teacher_dimension, teacher_dimension]

    def draw(count: int, dimension: int) -> torch.Tensor:
        return torch.randn(count, dimension, generator=generator, dtype=torch.float64).to(dtype)

    student_x, student_y, teacher_x, teacher_y = (draw(num_pairs, d) for d in sides)
    again, before_x, before_y = (
        draw(num_pairs, student_dimension),
        draw(num_pairs, teacher_dimension),
        draw(num_pairs, teacher_dimension),
    )
    extra = {}
    if negative_ids:
        extra["student_negatives_KD"] = draw(len(negative_ids), student_dimension)
        extra["student_negative_ids_K"] = torch.tensor(negative_ids)
    if teacher_negative_ids:
        extra["teacher_negatives_QE"] = draw(len(teacher_negative_ids), teacher_dimension)
        extra["teacher_negative_ids_Q"] = torch.tensor(teacher_negative_ids)
    return PairVectors(
        student_source_second_pass_BD=again,
        student_source_pre_projection_BW=before_x,
        student_target_pre_projection_BW=before_y,
        **extra,
        student_source_BD=student_x,
        student_target_BD=student_y,
        teacher_source_BE=teacher_x,
        teacher_target_BE=teacher_y,
        source_ids_B=torch.arange(num_pairs) if source_ids is None else torch.tensor(source_ids),
    )


@pytest.fixture
def vectors() -> Callable[..., PairVectors]:
    return random_vectors
