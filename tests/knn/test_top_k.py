"""The two-pass top K equals a stable sort, for any shape, layout and number of ties."""

from __future__ import annotations

import pytest
import torch

from mlkd.knn.top_k import top_of_rows


@pytest.mark.parametrize("num_columns", [1, 5, 127, 128, 129, 640, 1000])
@pytest.mark.parametrize("num_levels", [1, 2, 7, 10**6])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_equals_a_stable_sort(num_columns: int, num_levels: int, is_transposed: bool) -> None:
    generator = torch.Generator().manual_seed(num_columns + num_levels)
    matrix = -torch.randint(num_levels, (50, num_columns), generator=generator).float()
    given = matrix.T.contiguous().T if is_transposed else matrix
    for k in (1, 2, 4, 5):
        if k <= num_columns:
            expected = matrix.sort(dim=1, descending=True, stable=True)
            values, columns = top_of_rows(given, k)
            assert torch.equal(values, expected.values[:, :k])
            assert torch.equal(columns, expected.indices[:, :k])
