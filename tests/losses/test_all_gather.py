"""Several processes compute the loss of the one big batch, and its gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from mlkd.losses.all_gather import SumOverRanks, gather_rows, sum_of_all
from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm, Projection
from mlkd.losses.mix import LossMix, MixLoss
from mlkd.losses.pair_vectors import PADDING_ID, PairVectors
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates

PAIRS, NEGATIVES = 5, 3
# Unequal parts, in no order; every rank holds sources, targets and negatives of others' pairs.
DEALT = [[12, 0, 3, 7, 8], [1, 10, 2], [11, 4, 5, 6, 9]]
SIZE = len(DEALT)


class Threads:
    """Ranks as threads of one process."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(SIZE, timeout=20)
        self.parts: dict[int, Tensor] = {}

    def sum_of(self, rank: int) -> SumOverRanks:
        def add(tensor: Tensor) -> None:
            self.parts[rank] = tensor.clone()
            self.barrier.wait()
            tensor.copy_(torch.stack([self.parts[r] for r in range(SIZE)]).sum(dim=0))
            self.barrier.wait()

        return add

    def run(self, work: Callable[[int, SumOverRanks], dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        with ThreadPoolExecutor(SIZE) as pool:
            return list(pool.map(lambda rank: work(rank, self.sum_of(rank)), range(SIZE)))


def the_loss() -> MixLoss:
    """Every kind of term: in-batch, mined and further negatives, a projection, the whole cosine matrix."""
    ranking = InfoNceRanking(scale=4.0, candidates=Candidates.both, hard_negatives=1, teacher_negatives=2)
    feature = FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own, projection=Projection.dense)
    mix = LossMix(alpha=1.0, beta=0.5, gamma=3.0, temperature=1.0, ranking=ranking, feature=feature)
    torch.manual_seed(3)
    return mix.build(4, 4).double()


def projection_of(loss: MixLoss) -> Tensor:
    """The weight of its one dense layer."""
    weight, _ = loss.parameters()
    return weight


def texts() -> Tensor:
    """What the student reads: sources, targets, negatives."""
    return torch.randn(2 * PAIRS + NEGATIVES, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def total(loss: MixLoss, student_ND: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    teacher = [torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in (PAIRS, PAIRS, 4)]
    source, target, negatives = torch.split(student_ND, [PAIRS, PAIRS, NEGATIVES])
    vectors = PairVectors(
        student_source_BD=source,
        student_target_BD=target,
        teacher_source_BE=teacher[0],
        teacher_target_BE=teacher[1],
        source_ids_B=torch.tensor([0, 1, 2, 0, 4]),
        student_negatives_KD=negatives,
        student_negative_ids_K=torch.tensor([0, 9, 2]),
        teacher_negatives_QE=teacher[2],
        teacher_negative_ids_Q=torch.tensor([5, 1, 8, PADDING_ID]),
    )
    value: Tensor = loss(vectors).total
    return value


def test_the_mean_of_gradients_is_that_of_the_big_batch() -> None:
    whole_loss, whole = the_loss(), texts().requires_grad_()
    expected = total(whole_loss, whole)
    expected.backward()
    whole_projection = projection_of(whole_loss)
    assert whole.grad is not None
    losses = [the_loss() for _ in range(SIZE)]  # before the threads, which share torch's random numbers

    def work(rank: int, add: SumOverRanks) -> dict[str, Tensor]:
        own = texts()[DEALT[rank]].requires_grad_()
        value = total(losses[rank], gather_rows(own, DEALT, rank, add))
        value.backward()
        projection = projection_of(losses[rank])
        assert own.grad is not None and projection.grad is not None
        return {"total": value.detach(), "own": own.grad, "projection": projection.grad}

    found = Threads().run(work)
    for rank, one in enumerate(found):
        assert torch.equal(one["total"], expected.detach())
        torch.testing.assert_close(one["own"] / SIZE, whole.grad[DEALT[rank]], rtol=1e-12, atol=1e-14)
    projection = torch.stack([one["projection"] for one in found]).mean(dim=0)
    torch.testing.assert_close(projection, whole_projection.grad, rtol=1e-12, atol=1e-14)


def test_gathered_rows_are_the_same_bits_in_their_order() -> None:
    def work(rank: int, add: SumOverRanks) -> dict[str, Tensor]:
        return {"rows": gather_rows(texts()[DEALT[rank]], DEALT, rank, add)}

    assert all(torch.equal(one["rows"], texts()) for one in Threads().run(work))


def test_a_sum_reaches_every_part_of_it() -> None:
    parts = [2.0, 3.0, 5.0]

    def work(rank: int, add: SumOverRanks) -> dict[str, Tensor]:
        own = torch.tensor(parts[rank], requires_grad=rank > 0)  # the first has nothing that could learn
        value = sum_of_all(own, SIZE, add)
        (value**2).backward()
        return {"value": value.detach(), "gradient": own.grad if own.grad is not None else torch.tensor(0.0)}

    found = Threads().run(work)
    assert [one["value"].item() for one in found] == [10.0] * SIZE
    # d (2 + a + b)^2 = 20 for each of a and b, times R for the mean that follows.
    assert [one["gradient"].item() for one in found] == pytest.approx([0.0, 20.0 * SIZE, 20.0 * SIZE])
