"""What holds of every term for every batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm, Projection
from mlkd.losses.mix import LossMix
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates
from mlkd.losses.ranking.triplet import TripletMeasure, TripletRanking
from mlkd.losses.similarity import SimilarityDistance, SimilarityTerm

MIXES = {
    "mse": LossMix(),
    "squared_l2": LossMix(feature=FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own)),
    "cosine": LossMix(feature=FeatureTerm(distance=FeatureDistance.cosine)),
    "similarity": LossMix(beta=0.0, gamma=1.0, temperature=0.5),
    "ams": LossMix(alpha=1.0, beta=0.0, ranking=AmsRanking(scale=3.0)),
    "info_nce_teacher": LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(scale=3.0)),
    "info_nce_both": LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(scale=3.0, candidates=Candidates.both)),
    "info_nce_student": LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(scale=3.0, candidates=Candidates.student)),
    "info_nce_negatives": LossMix(
        alpha=1.0,
        beta=0.0,
        ranking=InfoNceRanking(scale=3.0, candidates=Candidates.both, hard_negatives=1, teacher_negatives=2),
    ),
    "simcse": LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(scale=3.0, candidates=Candidates.dropout)),
    "triplet": LossMix(alpha=1.0, beta=0.0, ranking=TripletRanking(margin=0.6)),
    "triplet_euclidean": LossMix(
        alpha=1.0, beta=0.0, ranking=TripletRanking(margin=0.6, measure=TripletMeasure.euclidean)
    ),
    "l2": LossMix(feature=FeatureTerm(distance=FeatureDistance.l2)),
    "distillation_first": LossMix(
        feature=FeatureTerm(target=FeatureTarget.own, projection=Projection.distillation_first)
    ),
    "kl": LossMix(beta=0.0, gamma=1.0, temperature=0.5, similarity=SimilarityTerm(distance=SimilarityDistance.kl)),
}
every_term = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
PAIRS = (
    "student_source_BD",
    "student_target_BD",
    "teacher_source_BE",
    "teacher_target_BE",
    "source_ids_B",
    "student_source_second_pass_BD",
    "student_source_pre_projection_BW",
    "student_target_pre_projection_BW",
)
NEGATIVES = ("student_negatives_KD", "student_negative_ids_K", "teacher_negatives_QE", "teacher_negative_ids_Q")


@st.composite
def batches(draw: st.DrawFn) -> PairVectors:
    num_pairs, dimension = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    ids = draw(st.lists(st.integers(0, 3), min_size=num_pairs, max_size=num_pairs))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sides = [torch.randn(num_pairs, dimension, generator=generator, dtype=torch.float64) for _ in range(7)]
    negatives = [torch.randn(3, dimension, generator=generator, dtype=torch.float64) for _ in range(2)]
    negative_ids = torch.tensor(draw(st.lists(st.integers(-1, 5), min_size=3, max_size=3)))
    return PairVectors(
        student_source_second_pass_BD=sides[4],
        student_source_pre_projection_BW=sides[5],
        student_target_pre_projection_BW=sides[6],
        student_negatives_KD=negatives[0],
        student_negative_ids_K=negative_ids,
        teacher_negatives_QE=negatives[1],
        teacher_negative_ids_Q=negative_ids,
        student_source_BD=sides[0],
        student_target_BD=sides[1],
        teacher_source_BE=sides[2],
        teacher_target_BE=sides[3],
        source_ids_B=torch.tensor(ids),
    )


def total(mix: LossMix, vectors: PairVectors) -> float:
    dimension = vectors.student_source_BD.shape[1]
    return float(mix.build(dimension, dimension)(vectors).total)


@every_term
@settings(max_examples=25, deadline=None)
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_a_batch_changes_nothing(mix: LossMix, vectors: PairVectors, rng: object) -> None:
    order = list(range(len(vectors.source_ids_B)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shuffled = dataclasses.replace(vectors, **{name: getattr(vectors, name)[torch.tensor(order)] for name in PAIRS})
    # Nor does the order of further negatives.
    shuffled = dataclasses.replace(shuffled, **{name: getattr(vectors, name).flip(0) for name in NEGATIVES})
    assert total(mix, shuffled) == pytest.approx(total(mix, vectors), rel=1e-9, abs=1e-12)


@every_term
@settings(max_examples=10, deadline=None)
@given(batches())
def test_inputs_are_not_changed(mix: LossMix, vectors: PairVectors) -> None:
    names = (*PAIRS, *NEGATIVES)
    before = {name: getattr(vectors, name).clone() for name in names}
    total(mix, vectors)
    for name in names:
        assert torch.equal(getattr(vectors, name), before[name]), name


@every_term
@settings(max_examples=25, deadline=None)
@given(batches())
def test_no_term_is_negative(mix: LossMix, vectors: PairVectors) -> None:
    assert total(mix, vectors) >= -1e-12


@pytest.mark.parametrize("name", ["mse", "squared_l2", "l2", "cosine", "similarity", "kl"])
@settings(max_examples=25, deadline=None)
@given(vectors=batches())
def test_a_perfect_student_has_no_loss(name: str, vectors: PairVectors) -> None:
    # Where the translation's target is the teacher on the source, a perfect student gives both sides that vector.
    own = name in {"squared_l2", "similarity", "kl"}
    perfect = dataclasses.replace(
        vectors,
        student_source_BD=vectors.teacher_source_BE,
        student_target_BD=vectors.teacher_target_BE if own else vectors.teacher_source_BE,
    )
    assert total(MIXES[name], perfect) == pytest.approx(0, abs=1e-12)
    assert total(MIXES[name], vectors) > 1e-9 or len(vectors.source_ids_B) == 1


@pytest.mark.parametrize(
    "name",
    ["similarity", "ams", "info_nce_teacher", "info_nce_student", "info_nce_negatives", "triplet", "kl", "cosine"],
)
@settings(max_examples=15, deadline=None)
@given(vectors=batches(), factor=st.floats(0.1, 10))
def test_terms_of_cosines_ignore_lengths(name: str, vectors: PairVectors, factor: float) -> None:
    longer = dataclasses.replace(vectors, student_source_BD=factor * vectors.student_source_BD)
    assert total(MIXES[name], longer) == pytest.approx(total(MIXES[name], vectors), rel=1e-9, abs=1e-12)


@every_term
def test_gradients(mix: LossMix, vectors: Callable[..., PairVectors]) -> None:
    v = vectors(num_pairs=4, source_ids=[0, 1, 0, 2], negative_ids=[1, 7], teacher_negative_ids=[2, 7, 9])
    names = [name for name in (*PAIRS, *NEGATIVES) if name.startswith("student") and "ids" not in name]

    def loss(*inputs: Tensor) -> Tensor:
        return mix.build(4, 4)(dataclasses.replace(v, **dict(zip(names, inputs, strict=True)))).total

    assert torch.autograd.gradcheck(loss, tuple(getattr(v, name).requires_grad_() for name in names))
    assert len(v.student_vectors) == len(names) == 6
