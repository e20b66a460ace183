"""What one process knows of several without exchanging anything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlkd.distributed.process_group import ProcessGroup, checksums
from mlkd.distributed.random_state import from_checkpoint, num_streams, of_rank, random_state, set_random_state


@given(lengths=st.lists(st.integers(1, 60), min_size=8, max_size=80), size=st.integers(1, 8))
def test_every_text_is_read_once_and_work_is_even(lengths: list[int], size: int) -> None:
    parts = ProcessGroup(size=size).partition(lengths)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    counts = [len(part) for part in parts]
    assert len(parts) == size and min(counts) >= 1 and max(counts) - min(counts) <= 1
    tokens = [sum(lengths[i] for i in part) for part in parts]
    assert max(tokens) - min(tokens) <= 2 * max(lengths)


def test_one_process_reads_in_order_and_exchanges_nothing() -> None:
    alone = ProcessGroup()
    assert alone.partition([3, 9, 1]) == [[0, 1, 2]]
    assert alone.any_of([True, False]) == [True, False]
    tensor = torch.ones(3)
    alone.mean([tensor])
    alone.broadcast([tensor])
    alone.synchronize(out_of_memory=True)
    alone.destroy(abort=False)
    assert tensor.tolist() == [1, 1, 1]
    assert alone.gather_answers("state") == []


def test_processes_draw_different_numbers_and_the_same_ones_again() -> None:
    before = torch.get_rng_state()
    try:
        drawn = {}
        for rank, step in [(1, 0), (2, 0), (1, 7), (1, 0)]:
            ProcessGroup(rank, 3).seed(1, step)
            numbers = torch.rand(3).tolist()
            assert drawn.setdefault((rank, step), numbers) == numbers
        assert len({tuple(numbers) for numbers in drawn.values()}) == 3
    finally:
        torch.set_rng_state(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_checksums_see_one_bit(dtype: torch.dtype) -> None:
    weights = torch.arange(12).to(dtype).reshape(3, 4)
    other = weights.clone()
    assert checksums([weights, weights.T]) == checksums([other, other])  # the order of the sum does not matter
    other.view(torch.uint8)[1, 1] ^= 1
    assert checksums([weights]) != checksums([other])


def test_random_states_of_several_processes_stand_in_one_checkpoint() -> None:
    cpu = torch.device("cpu")
    before = random_state(cpu)
    torch.manual_seed(1)
    other = random_state(cpu)
    saved = {**of_rank(before, 0), **of_rank(other, 1)}
    assert num_streams(saved) == 2 and num_streams(before) == 1
    found = from_checkpoint(saved, 1)
    assert found is not None
    expected = torch.rand(2)
    set_random_state(cpu, found)
    assert torch.equal(torch.rand(2), expected)
    assert from_checkpoint(saved, 2) is None
    set_random_state(cpu, before)
