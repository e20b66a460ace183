"""A large matrix is computed by blocks of rows: the same value and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from mlkd.losses import similarity_matrices as matrices
from mlkd.losses.feature import FeatureTarget, FeatureTerm
from mlkd.losses.mix import LossMix, gradient_shares
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking import base as negatives
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates
from mlkd.losses.ranking.triplet import TripletMeasure, TripletRanking
from mlkd.losses.similarity import SimilarityDistance, SimilarityTerm
from mlkd.losses.similarity_matrices import in_row_blocks

RANKINGS = [
    AmsRanking(scale=3.0),
    AmsRanking(scale=3.0, mask_same_source=True, hard_negatives=1),
    InfoNceRanking(candidates=Candidates.both, hard_negatives=1, teacher_negatives=2),
    InfoNceRanking(candidates=Candidates.dropout),
    TripletRanking(margin=0.7, hard_negatives=1),
    TripletRanking(margin=0.7, measure=TripletMeasure.euclidean, hardest=True),
]
MIXES = [LossMix(alpha=1.0, beta=0.0, ranking=ranking) for ranking in RANKINGS] + [
    LossMix(beta=0.0, gamma=1.0, temperature=0.5, similarity=SimilarityTerm(distance=distance))
    for distance in SimilarityDistance
]


@pytest.fixture(params=[1, 11, 24, 10_000])
def entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """At most so many entries at a time: one row of 7, one of 11, two or three rows, all."""
    monkeypatch.setattr(matrices, "MAX_ENTRIES", request.param)
    monkeypatch.setattr(negatives, "MAX_ENTRIES", request.param)
    yield request.param


def value_and_gradients(mix: LossMix, make: Callable[..., PairVectors]) -> tuple[float, list[torch.Tensor]]:
    v = make(num_pairs=7, source_ids=[0, 1, 0, 2, 1, 3, 4], negative_ids=[1, 9, -1], teacher_negative_ids=[4, 8])
    for tensor in v.student_vectors:
        tensor.requires_grad_()
    total = mix.build(4, 4)(v).total
    gradients = torch.autograd.grad(total, v.student_vectors, allow_unused=True)
    return total.item(), [torch.zeros(1) if g is None else g for g in gradients]


@pytest.mark.parametrize("mix", MIXES, ids=range(len(MIXES)))
def test_blocks_change_nothing(vectors: Callable[..., PairVectors], mix: LossMix, entries: int) -> None:
    found, gradients = value_and_gradients(mix, vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrices, "MAX_ENTRIES", 2**24)
        patch.setattr(negatives, "MAX_ENTRIES", 2**24)
        expected, by_whole = value_and_gradients(mix, vectors)
    assert found == pytest.approx(expected, rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-13) for a, b in zip(gradients, by_whole, strict=True))
    assert any(g.abs().max() > 1e-6 for g in gradients)


def test_shares_and_step_from_one_forward(vectors: Callable[..., PairVectors], entries: int) -> None:
    v = vectors()
    for tensor in v.student_vectors:
        tensor.requires_grad_()
    feature = FeatureTerm(target=FeatureTarget.own)
    mix = LossMix(alpha=1.0, beta=1.0, gamma=1.0, temperature=1.0, ranking=AmsRanking(scale=2.0), feature=feature)
    values = mix.build(4, 4)(v)
    shares = gradient_shares(values, v.student_vectors)
    values.total.backward()  # the graph is still alive
    assert sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) > 0
    assert v.student_source_BD.grad is not None


def test_rows_are_weighted_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "MAX_ENTRIES", 6)
    rows = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    calls = []

    def mean_of_rows(first: int, last: int) -> torch.Tensor:
        calls.append((first, last))
        return rows[first:last].mean()

    assert float(in_row_blocks(mean_of_rows, 5, 3)) == pytest.approx(31 / 5)
    assert calls == [(0, 2), (2, 4), (4, 5)]
