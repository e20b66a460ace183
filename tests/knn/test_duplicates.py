"""Neighbours among distinct rows, told for all rows."""

from __future__ import annotations

import pytest
import torch

from mlkd.knn import duplicates as repetitions
from mlkd.knn.duplicates import repeat_items, repeat_queries


@pytest.mark.parametrize("rows_at_once", [1, 100])
def test_by_hand(rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetitions, "_ROWS_AT_ONCE", rows_at_once)
    # Rows 0 and 3 are the distinct row 0, rows 1, 2 and 5 are 1, row 4 is 2.
    row_of = torch.tensor([0, 1, 1, 0, 2, 1])
    similarity = torch.tensor([[0.9, 0.5, 0.5], [0.7, 0.7, 0.7]])
    index = torch.tensor([[2, 0, 1], [0, 1, 2]])
    values, rows = repeat_items((similarity, index), row_of, 3)
    assert rows.tolist() == [[4, 0, 1], [0, 1, 2]]
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.5, 0.5], [0.7, 0.7, 0.7]]), rtol=0, atol=0)
    assert repeat_items((similarity, index), row_of, 10)[1].tolist() == [[4, 0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 5]]
    assert repeat_queries((similarity, index), torch.tensor([1, 0, 1]))[1].tolist() == [[0, 1, 2], [2, 0, 1], [0, 1, 2]]


def test_nothing_repeated_is_left_alone() -> None:
    found = (torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64))
    assert repeat_items(found, None, 5) is found
    assert repeat_queries(found, None) is found
