"""The mix of terms, its weights, and each term's share of the gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm, Projection
from mlkd.losses.masked_lm import MaskedLmTerm
from mlkd.losses.mix import LossMix, LossValues, gradient_shares
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates, NegativePool
from mlkd.losses.similarity import SimilarityTerm

MakeVectors = Callable[..., PairVectors]
LEALLA_FEATURE = FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own, projection=Projection.dense)


def test_leallas_mix_with_its_projection(vectors: MakeVectors) -> None:
    v = vectors(student_dimension=3, teacher_dimension=5)
    mix = LossMix(alpha=1.0, beta=1e3, gamma=1e-2, ranking=AmsRanking(), feature=LEALLA_FEATURE)
    loss = mix.build(3, 5).double()
    values = loss(v)

    weight, bias = (parameter.tolist() for parameter in loss.parameters())  # of the projection
    feature = 0.0
    assert v.teacher_target_BE is not None
    for student, teacher in (
        (v.student_source_BD, v.teacher_source_BE),
        (v.student_target_BD, v.teacher_target_BE),
    ):
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
            projected = [
                b + math.fsum(w * x for w, x in zip(row, s, strict=True)) for row, b in zip(weight, bias, strict=True)
            ]
            feature += math.fsum((a - b) ** 2 for a, b in zip(projected, t, strict=True)) / len(student)
    raw = {
        "ranking": float(AmsRanking()(v)),
        "feature": feature,
        "similarity": float(SimilarityTerm()(v, 100.0)),
    }
    assert {k: x.item() for k, x in values.raw.items()} == pytest.approx(raw, rel=1e-12)
    expected = raw["ranking"] + 1e3 * raw["feature"] + 1e-2 * raw["similarity"]
    assert values.total.item() == pytest.approx(expected, rel=1e-12)
    assert sum(x.item() for x in values.weighted.values()) == pytest.approx(expected, rel=1e-12)


def test_the_default_is_mse_distillation(vectors: MakeVectors) -> None:
    v = dataclasses.replace(vectors(), teacher_target_BE=None)
    values = LossMix().build(4, 4)(v)
    assert list(values.raw) == ["feature"]
    expected = (v.student_source_BD - v.teacher_source_BE).square().mean()
    expected += (v.student_target_BD - v.teacher_source_BE).square().mean()
    assert values.total.item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("name", ["ranking", "feature", "similarity"])
def test_a_term_of_weight_0_is_not_computed(vectors: MakeVectors, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def forbidden(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("computed in spite of weight 0")

    monkeypatch.setattr(FeatureTerm, "__call__", forbidden)
    monkeypatch.setattr(SimilarityTerm, "__call__", forbidden)
    monkeypatch.setattr(InfoNceRanking, "__call__", forbidden)
    weights = {"ranking": "alpha", "feature": "beta", "similarity": "gamma"}
    only = {weight: float(term == name) for term, weight in weights.items()}
    with pytest.raises(AssertionError, match="weight 0"):  # the one with a weight is computed
        LossMix(ranking=InfoNceRanking(), **only).build(4, 4)(vectors())
    monkeypatch.undo()
    for other in weights.keys() - {name}:
        owner = {"ranking": InfoNceRanking, "feature": FeatureTerm, "similarity": SimilarityTerm}[other]
        monkeypatch.setattr(owner, "__call__", forbidden)
    values = LossMix(ranking=InfoNceRanking(), **only).build(4, 4)(vectors())
    assert list(values.raw) == [name] == list(values.weighted)


def test_a_projection_is_built_only_where_the_feature_term_uses_it() -> None:
    projected = LossMix(feature=LEALLA_FEATURE).build(3, 5)
    assert [tuple(parameter.shape) for parameter in projected.parameters()] == [(5, 3), (5,)]
    unused = LossMix(alpha=1.0, beta=0.0, ranking=AmsRanking(), feature=LEALLA_FEATURE).build(3, 5)
    assert list(unused.parameters()) == []
    assert list(LossMix().build(3, 5).parameters()) == []


@pytest.mark.parametrize(
    ("mix", "teacher_target", "dimensions"),
    [
        (LossMix(), False, True),
        (LossMix(feature=FeatureTerm(target=FeatureTarget.own)), True, True),
        (LossMix(feature=LEALLA_FEATURE), True, False),
        (
            LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(), feature=FeatureTerm(target=FeatureTarget.own)),
            False,
            True,
        ),
        (LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(candidates=Candidates.student)), False, False),
        (LossMix(alpha=1.0, beta=0.0, ranking=InfoNceRanking(candidates=Candidates.both)), False, True),
        (LossMix(alpha=0.0, gamma=1.0, beta=0.0, ranking=InfoNceRanking()), True, False),
        (LossMix(alpha=1.0, beta=0.0, ranking=AmsRanking()), False, False),
        (LossMix(alpha=1.0, beta=1.0, ranking=InfoNceRanking(), feature=LEALLA_FEATURE), True, True),
        (LossMix(beta=0.0, gamma=1.0), True, False),
        (LossMix(beta=0.0, gamma=1.0, similarity=SimilarityTerm(target=FeatureTarget.source)), False, False),
    ],
)
def test_what_a_mix_asks_of_the_teacher(mix: LossMix, teacher_target: bool, dimensions: bool) -> None:
    assert mix.needs_teacher_target is teacher_target
    assert mix.compares_dimensions is dimensions


def test_distillation_first_compares_the_layer_before_the_last(vectors: MakeVectors) -> None:
    v = vectors(student_dimension=3, teacher_dimension=5)
    feature = dataclasses.replace(LEALLA_FEATURE, projection=Projection.distillation_first)
    mix = LossMix(alpha=1.0, beta=10.0, ranking=AmsRanking(scale=2.0), feature=feature)
    loss = mix.build(3, 5)
    assert list(loss.parameters()) == []  # the layer is the student's own
    values = loss(v)
    sides = (
        (v.student_source_pre_projection_BW, v.teacher_source_BE),
        (v.student_target_pre_projection_BW, v.teacher_target_BE),
    )
    expected = sum(
        math.fsum((a - b) ** 2 for s, t in zip(before, own, strict=True) for a, b in zip(s, t, strict=True))
        / len(before)
        for before, own in ((before.tolist(), own.tolist()) for before, own in sides)
    )
    assert values.raw["feature"].item() == pytest.approx(expected, rel=1e-12)
    assert values.raw["ranking"].item() == pytest.approx(float(AmsRanking(scale=2.0)(v)), rel=1e-12)
    assert (mix.needs_pre_projection, mix.compares_dimensions, mix.reduces_teacher) == (True, False, False)


def test_a_synchronized_teacher_meets_the_student_directly() -> None:
    feature = dataclasses.replace(LEALLA_FEATURE, projection=Projection.synchronized)
    mix = LossMix(feature=feature)
    assert (mix.needs_pre_projection, mix.compares_dimensions, mix.reduces_teacher) == (False, True, True)
    assert list(mix.build(4, 4).parameters()) == []
    assert not LossMix(alpha=1.0, beta=0.0, ranking=AmsRanking(), feature=feature).reduces_teacher


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        # second pass, mined a pair, as student vectors, as teacher vectors, further teacher vectors
        (AmsRanking(), (False, 0, True, False, 0)),
        (InfoNceRanking(), (False, 0, False, True, 0)),
        (InfoNceRanking(candidates=Candidates.dropout), (True, 0, True, False, 0)),
        (AmsRanking(hard_negatives=2), (False, 2, True, False, 0)),
        (InfoNceRanking(candidates=Candidates.both, hard_negatives=1), (False, 1, True, True, 0)),
        (InfoNceRanking(teacher_negatives=64), (False, 0, False, True, 64)),
        (InfoNceRanking(teacher_negatives=64, teacher_negatives_from=NegativePool.cache), (False, 0, False, True, 64)),
    ],
)
def test_what_a_ranking_asks_of_the_loop(ranking: RankingTerm, expected: tuple[object, ...]) -> None:
    def asked(mix: LossMix) -> tuple[object, ...]:
        return (
            mix.needs_second_dropout_pass,
            mix.num_hard_negatives,
            mix.has_student_candidates,
            mix.has_teacher_candidates,
            mix.num_teacher_negatives,
        )

    mix = LossMix(alpha=1.0, ranking=ranking)
    assert asked(mix) == expected
    assert mix.negative_pool is ranking.teacher_negatives_from
    assert asked(LossMix(alpha=0.0, ranking=ranking)) == (False, 0, False, False, 0)  # without weight, nothing


def test_one_more_term(vectors: MakeVectors) -> None:
    values = LossMix().build(4, 4)(vectors())
    more = values.plus("masked_lm", torch.tensor(3.0, dtype=torch.float64), 0.5)
    assert more.total.item() == pytest.approx(values.total.item() + 1.5, rel=1e-12)
    assert (more.raw["masked_lm"].item(), more.weighted["masked_lm"].item()) == (3.0, 1.5)
    assert list(more.raw) == ["feature", "masked_lm"]
    assert list(values.raw) == ["feature"]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_the_share_of_masked_tokens(share: float) -> None:
    with pytest.raises(MlkdError) as caught:
        MaskedLmTerm(mask_share=share)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "mask_share")]


@pytest.mark.parametrize(
    ("fields", "wheres"),
    [
        ({"alpha": -1.0}, ["alpha"]),
        ({"delta": -1.0}, ["delta"]),
        ({"beta": 0.0, "delta": 1.0}, [""]),
        ({"beta": math.nan}, ["beta", ""]),
        ({"gamma": -0.5, "temperature": -1.0}, ["gamma", "temperature"]),
        ({"beta": 0.0}, [""]),
        ({"temperature": 0.0}, ["temperature"]),
        (
            {"alpha": -1.0, "beta": -1.0, "gamma": -1.0, "temperature": 0.0},
            ["alpha", "beta", "gamma", "", "temperature"],
        ),
    ],
)
def test_ranges(fields: dict[str, float], wheres: list[str]) -> None:
    with pytest.raises(MlkdError) as caught:
        LossMix(**fields)
    assert [p.where for p in caught.value.problems] == wheres
    assert {p.code for p in caught.value.problems} == {"E204"}
    assert caught.value.exit_code == 2


def test_a_ranking_weight_needs_a_ranking_term() -> None:
    with pytest.raises(MlkdError) as caught:
        LossMix(alpha=1.0)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E205", "ranking")]


def shares_of(weighted: dict[str, torch.Tensor], student: list[torch.Tensor]) -> dict[str, float]:
    total = torch.stack(list(weighted.values())).sum()
    return gradient_shares(LossValues(total=total, raw=weighted, weighted=weighted), student)


def test_shares_of_hand_made_gradients() -> None:
    x = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    y = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    # Gradients: 3 in one entry of x and 4 in one of y, norm 5; 15 in one entry of x alone, norm 15.
    weighted = {"ranking": 3 * x[0, 0] + 4 * y[1, 1], "feature": 15 * x[1, 0]}
    assert shares_of(weighted, [x, y]) == pytest.approx({"ranking": 0.25, "feature": 0.75})


def test_shares_follow_the_norms_of_the_terms_own_gradients(vectors: MakeVectors) -> None:
    v = vectors(num_pairs=3)
    x, y = v.student_source_BD.requires_grad_(), v.student_target_BD.requires_grad_()
    mix = LossMix(alpha=0.3, beta=2.0, gamma=5.0, temperature=1.0, ranking=AmsRanking(scale=2.0))
    values = mix.build(4, 4)(v)
    shares = gradient_shares(values, [x, y])
    assert sum(shares.values()) == pytest.approx(1.0, rel=1e-12)

    # d MSE / dx = 2 (x - t) / (B d), by hand; the others by finite differences of the weighted sum.
    count = x.numel()
    by_hand = torch.cat([2.0 * 2 * (s.detach() - v.teacher_source_BE) / count for s in (x, y)]).norm()
    norms = {"feature": float(by_hand)}
    for name in ("ranking", "similarity"):
        squares = 0.0
        for side in ("student_source_BD", "student_target_BD"):
            for i in range(count):
                plus, minus = (getattr(v, side).detach().clone() for _ in range(2))
                plus.view(-1)[i] += 1e-5
                minus.view(-1)[i] -= 1e-5
                ends = [
                    mix.build(4, 4)(dataclasses.replace(v, **{side: moved})).weighted[name].item()
                    for moved in (plus, minus)
                ]
                squares += ((ends[0] - ends[1]) / 2e-5) ** 2
        norms[name] = math.sqrt(squares)
    total = sum(norms.values())
    assert shares == pytest.approx({name: norm / total for name, norm in norms.items()}, rel=1e-5)
    values.total.backward()  # the graph is still alive
    assert x.grad is not None


def test_shares_of_a_vanished_gradient_are_zero_not_nan() -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    assert shares_of({"feature": x.square().sum()}, [x]) == {"feature": 0.0}
