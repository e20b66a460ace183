"""Every term against a loop written from its equation, in plain Python floats."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.losses.feature import FeatureDistance, FeatureSides, FeatureTarget, FeatureTerm
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates, same_source_mask
from mlkd.losses.similarity import SimilarityDistance, SimilarityTerm

Rows = list[list[float]]
MakeVectors = Callable[..., PairVectors]


def cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def squared_distance(a: list[float], b: list[float]) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def rows(tensor: Tensor | None) -> Rows:
    assert tensor is not None
    return tensor.tolist()


def loop_cross_entropy(logits: Rows, source_ids: list[int] | None = None) -> float:
    """Mean over rows of -log softmax at the diagonal, without the pairs that share the row's source text."""
    terms = []
    for i, row in enumerate(logits):
        kept = [j for j in range(len(row)) if j == i or source_ids is None or source_ids[j] != source_ids[i]]
        terms.append(math.log(math.fsum(math.exp(row[j]) for j in kept)) - row[i])
    return math.fsum(terms) / len(terms)


def apply(term: FeatureTerm, vectors: PairVectors) -> float:
    return float(term(vectors, vectors.student_source_BD, vectors.student_target_BD))


def test_mse_is_the_sum_of_both_sides_means_to_the_teacher_on_the_source(vectors: MakeVectors) -> None:
    v = vectors()
    teacher, x, y = rows(v.teacher_source_BE), rows(v.student_source_BD), rows(v.student_target_BD)
    n, d = len(x), len(x[0])
    expected = math.fsum(
        (teacher[i][k] - x[i][k]) ** 2 + (teacher[i][k] - y[i][k]) ** 2 for i in range(n) for k in range(d)
    ) / (n * d)
    assert apply(FeatureTerm(), v) == pytest.approx(expected, rel=1e-12)


def test_leallas_feature_term_sums_dimensions_and_pulls_each_side_to_its_own_teacher_vector(
    vectors: MakeVectors,
) -> None:
    v = vectors()
    x, y = rows(v.student_source_BD), rows(v.student_target_BD)
    teacher_x, teacher_y = rows(v.teacher_source_BE), rows(v.teacher_target_BE)
    n = len(x)
    expected = (
        math.fsum(squared_distance(teacher_x[i], x[i]) + squared_distance(teacher_y[i], y[i]) for i in range(n)) / n
    )
    term = FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own)
    assert apply(term, v) == pytest.approx(expected, rel=1e-12)


def test_cosine_distance(vectors: MakeVectors) -> None:
    v = vectors()
    teacher, x, y = rows(v.teacher_source_BE), rows(v.student_source_BD), rows(v.student_target_BD)
    n = len(x)
    expected = math.fsum(2 - cosine(teacher[i], x[i]) - cosine(teacher[i], y[i]) for i in range(n)) / n
    assert apply(FeatureTerm(distance=FeatureDistance.cosine), v) == pytest.approx(expected, rel=1e-12)


def test_l2_is_the_mean_distance_not_squared(vectors: MakeVectors) -> None:
    v = vectors()
    teacher, x, y = rows(v.teacher_source_BE), rows(v.student_source_BD), rows(v.student_target_BD)
    expected = math.fsum(math.dist(teacher[i], x[i]) + math.dist(teacher[i], y[i]) for i in range(len(x))) / len(x)
    assert apply(FeatureTerm(distance=FeatureDistance.l2), v) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("target", list(FeatureTarget))
def test_laser3_pulls_translations_alone(vectors: MakeVectors, target: FeatureTarget) -> None:
    v = vectors()
    teacher = rows(v.teacher_source_BE if target is FeatureTarget.source else v.teacher_target_BE)
    y = rows(v.student_target_BD)
    expected = math.fsum(1 - cosine(t, s) for t, s in zip(teacher, y, strict=True)) / len(y)
    term = FeatureTerm(distance=FeatureDistance.cosine, target=target, sides=FeatureSides.translation)
    assert apply(term, v) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("distance", list(FeatureDistance))
def test_a_student_at_its_target_has_a_finite_gradient(vectors: MakeVectors, distance: FeatureDistance) -> None:
    v = vectors()
    student = v.teacher_source_BE.clone().requires_grad_()
    at_target = dataclasses.replace(v, student_source_BD=student, student_target_BD=student)
    term = FeatureTerm(distance=distance)
    (gradient,) = torch.autograd.grad(term(at_target, student, student), student)
    assert gradient.abs().max() < 1e-12  # nor NaN, which compares as False


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_kl_of_the_rows_softmaxes(vectors: MakeVectors, temperature: float) -> None:
    v = vectors(student_dimension=3, teacher_dimension=6)

    def softmaxes(x: Rows, y: Rows) -> Rows:
        powers = [[math.exp(cosine(a, b) / temperature) for b in y] for a in x]
        return [[power / math.fsum(row) for power in row] for row in powers]

    p = softmaxes(rows(v.teacher_source_BE), rows(v.teacher_target_BE))
    q = softmaxes(rows(v.student_source_BD), rows(v.student_target_BD))
    n = len(p)
    expected = math.fsum(p[i][j] * math.log(p[i][j] / q[i][j]) for i in range(n) for j in range(n)) / n
    term = SimilarityTerm(distance=SimilarityDistance.kl)
    assert float(term(v, temperature)) == pytest.approx(expected, rel=1e-10)
    reference = torch.nn.functional.kl_div(
        torch.tensor(q, dtype=torch.float64).log(), torch.tensor(p, dtype=torch.float64), reduction="batchmean"
    )
    assert float(reference) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 100.0])
def test_similarity_term(vectors: MakeVectors, temperature: float) -> None:
    v = vectors(student_dimension=3, teacher_dimension=6)
    x, y = rows(v.student_source_BD), rows(v.student_target_BD)
    teacher_x, teacher_y = rows(v.teacher_source_BE), rows(v.teacher_target_BE)
    n = len(x)
    expected = (
        math.fsum(
            ((cosine(teacher_x[i], teacher_y[j]) - cosine(x[i], y[j])) / temperature) ** 2
            for i in range(n)
            for j in range(n)
        )
        / n**2
    )
    assert float(SimilarityTerm()(v, temperature)) == pytest.approx(expected, rel=1e-12)


def test_similarity_to_a_teacher_of_one_language(vectors: MakeVectors) -> None:
    v = dataclasses.replace(vectors(student_dimension=3, teacher_dimension=6), teacher_target_BE=None)
    as_own = dataclasses.replace(v, teacher_target_BE=v.teacher_source_BE)
    for distance in SimilarityDistance:
        own, source = (
            SimilarityTerm(distance=distance, target=target) for target in (FeatureTarget.own, FeatureTarget.source)
        )
        assert float(source(v, 0.5)) == float(own(as_own, 0.5))


@pytest.mark.parametrize(("scale", "margin"), [(1.0, 0.3), (20.0, 0.0), (100.0, 0.3)])
@pytest.mark.parametrize("mask", [False, True])
def test_ams_sums_both_directions_with_the_margin_on_the_diagonal(
    vectors: MakeVectors, scale: float, margin: float, mask: bool
) -> None:
    ids = [0, 1, 0, 2, 1]
    v = vectors(source_ids=ids)
    x, y = rows(v.student_source_BD), rows(v.student_target_BD)
    logits = [[scale * (cosine(a, b) - margin * (i == j)) for j, b in enumerate(y)] for i, a in enumerate(x)]
    transposed = [list(column) for column in zip(*logits, strict=True)]
    shared = ids if mask else None
    expected = loop_cross_entropy(logits, shared) + loop_cross_entropy(transposed, shared)
    term = AmsRanking(scale=scale, margin=margin, mask_same_source=mask)
    assert float(term(v)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("num_pairs", "per_direction"), [(64, 3.4746), (512, 5.5403)])
def test_the_printed_ams_of_a_perfect_student_is_far_from_zero(num_pairs: int, per_direction: float) -> None:
    perfect = torch.eye(num_pairs, dtype=torch.float64)
    v = PairVectors(
        student_source_BD=perfect,
        student_target_BD=perfect,
        teacher_source_BE=perfect,
        teacher_target_BE=None,
        source_ids_B=torch.arange(num_pairs),
    )
    value = float(AmsRanking(scale=1.0, margin=0.3)(v))
    assert value == pytest.approx(2 * math.log(1 + (num_pairs - 1) * math.exp(-0.7)), rel=1e-12)
    assert value == pytest.approx(2 * per_direction, abs=2e-4)
    assert float(AmsRanking()(v)) < 1e-12  # LaBSE's scale of 100


def test_the_ams_defaults_are_those_of_labse() -> None:
    assert (AmsRanking().scale, AmsRanking().margin, AmsRanking().mask_same_source) == (100.0, 0.3, False)


@pytest.mark.parametrize("mask", [False, True])
def test_info_nce_against_the_teacher(vectors: MakeVectors, mask: bool) -> None:
    ids = [0, 1, 0, 2, 1]
    v = vectors(source_ids=ids)
    # Pairs with one source text have one teacher vector, as in a run.
    v = dataclasses.replace(v, teacher_source_BE=v.teacher_source_BE[torch.tensor([0, 1, 0, 3, 1])])
    teacher = rows(v.teacher_source_BE)
    sides = [rows(v.student_source_BD), rows(v.student_target_BD)]
    shared = ids if mask else None
    losses = [loop_cross_entropy([[7.0 * cosine(s, t) for t in teacher] for s in side], shared) for side in sides]
    term = InfoNceRanking(scale=7.0, mask_same_source=mask)
    assert float(term(v)) == pytest.approx(sum(losses) / 2, rel=1e-12)


@pytest.mark.parametrize("mask", [False, True])
def test_info_nce_against_the_student(vectors: MakeVectors, mask: bool) -> None:
    ids = [3, 3, 3, 2, 1]
    v = vectors(student_dimension=3, teacher_dimension=6, source_ids=ids)
    x, y = rows(v.student_source_BD), rows(v.student_target_BD)
    shared = ids if mask else None
    forward = loop_cross_entropy([[7.0 * cosine(a, b) for b in y] for a in x], shared)
    backward = loop_cross_entropy([[7.0 * cosine(a, b) for a in x] for b in y], shared)
    term = InfoNceRanking(scale=7.0, candidates=Candidates.student, mask_same_source=mask)
    assert float(term(v)) == pytest.approx((forward + backward) / 2, rel=1e-12)


def test_info_nce_against_both_is_the_sum_of_the_two(vectors: MakeVectors) -> None:
    v = vectors(source_ids=[0, 1, 0, 2, 1])
    teacher, student, both = (
        float(InfoNceRanking(scale=7.0, candidates=candidates)(v))
        for candidates in (Candidates.teacher, Candidates.student, Candidates.both)
    )
    assert both == pytest.approx(teacher + student, rel=1e-12)


def test_a_batch_of_one_source_text_has_no_negatives(vectors: MakeVectors) -> None:
    v = vectors(source_ids=[4, 4, 4, 4, 4])
    assert float(InfoNceRanking()(v)) == 0.0
    assert float(InfoNceRanking(mask_same_source=False)(v)) > 0.1


def test_same_source_leaves_out_the_diagonal(vectors: MakeVectors) -> None:
    same = same_source_mask(vectors(num_pairs=3, source_ids=[5, 6, 5]).source_ids_B)
    assert same.tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_a_zero_vector_gives_finite_values_and_gradients(vectors: MakeVectors) -> None:
    v = vectors(dtype=torch.float32)
    student = v.student_source_BD.clone()
    student[0] = 0
    student.requires_grad_()
    v = dataclasses.replace(v, student_source_BD=student)
    for value in (AmsRanking()(v), InfoNceRanking()(v), SimilarityTerm()(v, 1.0)):
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_scale_must_be_positive(value: float) -> None:
    for term in (AmsRanking, InfoNceRanking):
        with pytest.raises(MlkdError) as caught:
            term(scale=value)
        assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "scale")]


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_margin_must_not_be_negative(value: float) -> None:
    with pytest.raises(MlkdError) as caught:
        AmsRanking(margin=value)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "margin")]


def test_all_problems_of_a_ranking_term_come_together() -> None:
    with pytest.raises(MlkdError) as caught:
        AmsRanking(margin=-1.0, scale=0.0)
    assert [p.where for p in caught.value.problems] == ["scale", "margin"]
    assert "got -1.0" in str(caught.value)
