"""Every epoch is a fixed function of seed and number, and gives each language its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.batches import Batches

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_every_pair_comes_once_in_an_epoch(sizes: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = Batches(sizes, batch_size, seed=seed).epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(sum(sizes)))


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(1, 20), st.floats(1, 20))
def test_batches_are_as_many_as_said_and_even_in_size(sizes: list[int], batch_size: int, temperature: float) -> None:
    plan = Batches(sizes, batch_size, temperature=temperature)
    lengths = [len(b) for b in plan.epoch(0)]
    assert len(lengths) == plan.num_batches == -(-sum(sizes) // batch_size)
    assert max(lengths) - min(lengths) <= 1 and max(lengths) <= batch_size and sum(lengths) == plan.num_pairs


@settings(max_examples=100, deadline=None)
@given(SIZES, st.floats(1, 20), st.integers(0, 3))
def test_languages_get_their_quotas(sizes: list[int], temperature: float, epoch: int) -> None:
    plan = Batches(sizes, 7, temperature=temperature)
    quotas = plan.language_quotas()
    weights = [size ** (1 / temperature) if size else 0.0 for size in sizes]
    for quota, weight in zip(quotas, weights, strict=True):
        assert abs(quota - sum(sizes) * weight / sum(weights)) < 1
    assert sum(quotas) == sum(sizes)
    order = np.concatenate(plan.epoch(epoch))
    start = 0
    for size, quota in zip(sizes, quotas, strict=True):
        chosen = order[(order >= start) & (order < start + size)]
        assert len(chosen) == quota
        counts = np.bincount(chosen - start, minlength=size)
        assert size == 0 or counts.max() - counts.min() <= 1  # whole passes and a sample
        start += size


def test_quotas_by_hand() -> None:
    # sqrt(100) : sqrt(25) : sqrt(4) = 10 : 5 : 2, of 129 pairs.
    assert Batches([100, 25, 4], 8, temperature=2.0).language_quotas() == [76, 38, 15]
    assert Batches([100, 25, 4], 8).language_quotas() == [100, 25, 4]


def test_seed_and_epoch_decide_the_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Batches([30, 20], 8, temperature=3.0, seed=seed).epoch(epoch)).tolist()

    assert order(1, 4) == order(1, 4)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6


def test_a_large_language_is_sampled_anew_in_each_epoch() -> None:
    plan = Batches([1000, 10], 64, temperature=5.0)
    seen = {i for epoch in range(8) for i in np.concatenate(plan.epoch(epoch)).tolist() if i < 1000}
    assert plan.language_quotas()[0] < 800 and len(seen) > 990


def test_languages_meet_in_a_batch() -> None:
    for batch in Batches([64, 64], 32).epoch(0):
        assert 4 < (batch < 64).sum() < 28


@pytest.mark.parametrize("size", [1, 3])
def test_a_corpus_smaller_than_a_batch_is_one_batch(size: int) -> None:
    plan = Batches([size], 64)
    assert plan.num_batches == 1 and sorted(plan.epoch(0)[0].tolist()) == list(range(size))
