"""Shards in any order give the neighbours of one search, to the last bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.knn.merge import ShardedSearch, merge
from mlkd.knn.neighbours import Neighbours, NeighbourSearch


@settings(max_examples=40, deadline=None)
@given(
    num_source=st.integers(1, 30),
    num_target=st.integers(1, 30),
    shard=st.integers(6, 15),
    k=st.integers(1, 6),
    num_directions=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 99),
)
def test_shards_equal_one_search(
    *, num_source: int, num_target: int, shard: int, k: int, num_directions: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(num_directions, 6, generator=generator)
    source, target = (
        directions[torch.randint(num_directions, (num,), generator=generator)] for num in (num_source, num_target)
    )
    search = NeighbourSearch(device="cpu")
    gathered = ShardedSearch(search, num_source, num_target, k)
    shards = [(i, j) for i in range(0, num_source, shard) for j in range(0, num_target, shard)]
    for place in torch.randperm(len(shards), generator=generator).tolist():
        i, j = shards[place]
        gathered.add(i, source[i : i + shard], j, target[j : j + shard])
    for found, expected in zip(gathered.result(), search.both_ways(source, target, k), strict=True):
        assert torch.equal(found.similarity, expected.similarity)
        assert torch.equal(found.index, expected.index)


def test_merge_by_hand() -> None:
    first = Neighbours(torch.tensor([[0.9, 0.5], [0.3, 0.2]]), torch.tensor([[4, 9], [7, 8]]))
    second = Neighbours(torch.tensor([[0.9], [0.1]]), torch.tensor([[2], [3]]))
    found = merge([first, second], 2)
    assert found.index.tolist() == [[2, 4], [7, 8]]
    torch.testing.assert_close(found.similarity, torch.tensor([[0.9, 0.9], [0.3, 0.2]]), rtol=0, atol=0)
    assert merge([first, second], 9).index.tolist() == [[2, 4, 9], [7, 8, 3]]


def test_a_missing_shard_is_noticed() -> None:
    gathered = ShardedSearch(NeighbourSearch(device="cpu"), 2, 2, 1)
    gathered.add(0, torch.ones(1, 2), 0, torch.ones(2, 2))
    with pytest.raises(AssertionError, match="2 pairs of rows were added, 4 there are"):
        gathered.result()
