"""What is ranked among which candidates: negatives, dropout passes and triplets, each by loops over its equation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.losses.pair_vectors import PADDING_ID, PairVectors
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates
from mlkd.losses.ranking.triplet import TripletMeasure, TripletRanking

MakeVectors = Callable[..., PairVectors]
Measure = Callable[[list[float], list[float]], float]
IDS = [0, 1, 0, 2, 1]
NEGATIVE_IDS = [1, 7, PADDING_ID]  # the first shares the source of pairs 1 and 4, the last is a filler row


def cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def minus_distance(a: list[float], b: list[float]) -> float:
    return -math.dist(a, b)


def entries(
    rows: Tensor, columns: Tensor, negatives: tuple[Tensor, list[int]] | None, *, mask: bool, measure: Measure = cosine
) -> list[tuple[float, list[float]]]:
    """Per row: the similarity to its positive, and those to its negatives."""
    found = []
    for i, row in enumerate(rows.tolist()):
        positive = measure(row, columns.tolist()[i])
        others = [
            measure(row, column)
            for j, column in enumerate(columns.tolist())
            if j != i and not (mask and IDS[i] == IDS[j])
        ]
        if negatives is not None:
            vectors, ids = negatives
            others += [
                measure(row, negative)
                for negative, number in zip(vectors.tolist(), ids, strict=True)
                if number not in (IDS[i], PADDING_ID)
            ]
        found.append((positive, others))
    return found


def cross_entropy(found: list[tuple[float, list[float]]], scale: float, margin: float = 0.0) -> float:
    losses = []
    for positive, others in found:
        logit = scale * (positive - margin)
        losses.append(math.log(math.exp(logit) + math.fsum(math.exp(scale * o) for o in others)) - logit)
    return math.fsum(losses) / len(losses)


def the_batch(vectors: MakeVectors) -> tuple[PairVectors, tuple[Tensor, list[int]], tuple[Tensor, list[int]]]:
    v = vectors(source_ids=IDS, negative_ids=NEGATIVE_IDS, teacher_negative_ids=NEGATIVE_IDS)
    assert v.student_negatives_KD is not None and v.teacher_negatives_QE is not None
    return v, (v.student_negatives_KD, NEGATIVE_IDS), (v.teacher_negatives_QE, NEGATIVE_IDS)


@pytest.mark.parametrize("mask", [False, True])
def test_ams_with_hard_negatives_of_another_source_text(vectors: MakeVectors, mask: bool) -> None:
    v, mined, _ = the_batch(vectors)
    x, y = v.student_source_BD, v.student_target_BD
    expected = sum(cross_entropy(entries(a, b, mined, mask=mask), 5.0, 0.3) for a, b in ((x, y), (y, x)))
    term = AmsRanking(scale=5.0, mask_same_source=mask, hard_negatives=1)
    assert float(term(v)) == pytest.approx(expected, rel=1e-12)
    without = dataclasses.replace(v, student_negatives_KD=None, student_negative_ids_K=None)
    assert float(term(without)) < expected - 1e-3


@pytest.mark.parametrize("mask", [False, True])
def test_info_nce_with_further_teacher_vectors(vectors: MakeVectors, mask: bool) -> None:
    v, _, further = the_batch(vectors)
    sides = (v.student_source_BD, v.student_target_BD)
    found = [cross_entropy(entries(side, v.teacher_source_BE, further, mask=mask), 7.0) for side in sides]
    term = InfoNceRanking(scale=7.0, mask_same_source=mask, teacher_negatives=3)
    assert float(term(v)) == pytest.approx(sum(found) / 2, rel=1e-12)


def test_ranking_against_both_uses_each_sides_own_negatives(vectors: MakeVectors) -> None:
    v, _, _ = the_batch(vectors)
    both, teacher, student = (
        float(InfoNceRanking(scale=7.0, candidates=a, hard_negatives=1)(v))
        for a in (Candidates.both, Candidates.teacher, Candidates.student)
    )
    assert both == pytest.approx(teacher + student, rel=1e-12)


def test_ams_against_the_teacher(vectors: MakeVectors) -> None:
    v = vectors(source_ids=IDS)
    sides = (v.student_source_BD, v.student_target_BD)
    expected = sum(cross_entropy(entries(s, v.teacher_source_BE, None, mask=True), 5.0, 0.3) for s in sides)
    term = AmsRanking(scale=5.0, candidates=Candidates.teacher, mask_same_source=True)
    assert float(term(v)) == pytest.approx(expected, rel=1e-12)


def test_simcse_ranks_two_dropout_passes_in_one_direction(vectors: MakeVectors) -> None:
    v = vectors(source_ids=IDS)
    assert v.student_source_second_pass_BD is not None
    expected = cross_entropy(entries(v.student_source_BD, v.student_source_second_pass_BD, None, mask=True), 20.0)
    assert float(InfoNceRanking(candidates=Candidates.dropout)(v)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("measure", list(TripletMeasure))
@pytest.mark.parametrize("hardest", [False, True])
def test_triplets(vectors: MakeVectors, measure: TripletMeasure, hardest: bool) -> None:
    v, mined, _ = the_batch(vectors)
    by_hand = cosine if measure is TripletMeasure.cosine else minus_distance
    directions = []
    for rows, columns in (
        (v.student_source_BD, v.student_target_BD),
        (v.student_target_BD, v.student_source_BD),
    ):
        losses = []
        for positive, others in entries(rows, columns, mined, mask=True, measure=by_hand):
            hinges = [max(0.0, other - positive + 0.7) for other in others]
            losses.append(max(hinges) if hardest else math.fsum(hinges) / len(hinges))
        directions.append(math.fsum(losses) / len(losses))
    term = TripletRanking(measure=measure, margin=0.7, hardest=hardest, hard_negatives=1)
    assert float(term(v)) == pytest.approx(sum(directions) / 2, rel=1e-12)


def test_a_triplet_of_2_points_by_hand() -> None:
    # Cosines 1 and 0: a margin of 0.2 is kept, a margin of 1.5 is missed by 0.5, in all four triplets.
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    v = PairVectors(
        student_source_BD=points,
        student_target_BD=3 * points,
        teacher_source_BE=points,
        teacher_target_BE=None,
        source_ids_B=torch.arange(2),
    )
    assert float(TripletRanking()(v)) == 0.0
    assert float(TripletRanking(margin=1.5)(v)) == pytest.approx(0.5)
    # Distances: (1,0)-(3,0) is 2, (1,0)-(0,6) is sqrt 37; (0,2)-(0,6) is 4, (0,2)-(3,0) is sqrt 13; and the reverse.
    hinges = [max(0.0, near - far + 1) for near, far in ((2, 37**0.5), (4, 13**0.5), (2, 13**0.5), (4, 37**0.5))]
    assert float(TripletRanking(measure=TripletMeasure.euclidean, margin=1.0)(v)) == pytest.approx(sum(hinges) / 4)


def test_a_row_without_negatives_has_no_triplet_loss(vectors: MakeVectors) -> None:
    v = vectors(num_pairs=3, source_ids=[4, 4, 4])
    for hardest in (False, True):
        assert float(TripletRanking(margin=3.0, hardest=hardest)(v)) == 0.0
        assert float(TripletRanking(margin=3.0, hardest=hardest, mask_same_source=False)(v)) > 0.5


@pytest.mark.parametrize(
    ("make", "where", "code"),
    [
        (lambda: InfoNceRanking(hard_negatives=-1), "hard_negatives", "E204"),
        (lambda: AmsRanking(teacher_negatives=-1), "teacher_negatives", "E204"),
        (lambda: AmsRanking(teacher_negatives=5), "teacher_negatives", "E209"),
        (lambda: InfoNceRanking(teacher_negatives=5, candidates=Candidates.dropout), "teacher_negatives", "E209"),
        (lambda: TripletRanking(margin=0.0), "margin", "E204"),
        (lambda: TripletRanking(margin=math.nan), "margin", "E204"),
    ],
)
def test_ranges(make: Callable[[], RankingTerm], where: str, code: str) -> None:
    with pytest.raises(MlkdError) as caught:
        make()
    assert [(p.code, p.where) for p in caught.value.problems] == [(code, where)]
