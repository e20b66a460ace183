"""Rows of length 1: exact in any order of summation, the same wherever they stand, repetitions found."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.knn.unit_vectors import GRID, distinct_vectors, similarities

_CPU = torch.device("cpu")


def _random(num: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


def test_hand_computed_rows() -> None:
    rows = distinct_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2e-40]]), "source", _CPU, torch.float32).rows
    # 0.6 x 2^26 = 40265318.4 and 0.8 x 2^26 = 53687091.2
    assert rows.on_grid(slice(0, 3)).tolist() == [[40265318, 53687091], [0, 0], [0, -(2**26)]]


@pytest.mark.parametrize("dim", [2, 3, 64, 1000])
def test_similarity_is_the_exact_sum_rounded_once(dim: int) -> None:
    source, target = (distinct_vectors(_random(5, dim, seed), "source", _CPU, torch.float32).rows for seed in (1, 2))
    query, item = torch.arange(5), torch.tensor([[4, 0], [3, 1], [2, 2], [1, 3], [0, 4]])
    found = similarities(source, query, target, item)
    for row, items in enumerate(item.tolist()):
        for column, other in enumerate(items):
            pairs = zip(
                source.on_grid(query)[row].tolist(), target.on_grid(torch.arange(5))[other].tolist(), strict=True
            )
            exact = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0)) / Fraction(GRID) ** 2
            assert found[row, column] == torch.tensor(float(exact), dtype=torch.float32)


def test_similarity_is_a_cosine_to_float32() -> None:
    a, b = _random(50, 768, 1), _random(50, 768, 2)
    rows = [distinct_vectors(vectors, "source", _CPU, torch.float32).rows for vectors in (a, a + 0.5 * b)]
    found = similarities(rows[0], torch.arange(50), rows[1], torch.arange(50)[:, None]).squeeze(1)
    cosine = torch.nn.functional.cosine_similarity(a.double(), (a + 0.5 * b).double())
    # Half a unit in the last place of a number in [0.5, 1), and the grid's share.
    assert float((found.double() - cosine).abs().max()) < 2.0**-25 + 3e-8


@given(st.permutations(range(7)), st.integers(2, 40))
def test_a_row_is_the_same_wherever_it_stands(order: list[int], dim: int) -> None:
    vectors = _random(7, dim)
    rows = distinct_vectors(vectors, "source", _CPU, torch.float32).rows
    moved = distinct_vectors(vectors[order], "source", _CPU, torch.float32).rows
    assert torch.equal(rows.on_grid(torch.tensor(order)), moved.on_grid(slice(0, 7)))
    assert torch.equal(rows.on_grid(slice(order[0], order[0] + 1))[0], moved.on_grid(torch.tensor([0]))[0])


def test_repetitions_in_order_of_first_occurrence() -> None:
    a, b, c = _random(3, 10)
    # A multiple by a power of two has the same direction to the last bit; -0 is 0.
    found = distinct_vectors(torch.stack([b, a, 4 * b, c, a, 0 * c, -0.0 * c]), "source", _CPU, torch.float32)
    assert found.row_of is not None
    assert found.row_of.tolist() == [0, 1, 0, 2, 1, 3, 3]
    assert found.rows.chosen is not None
    assert found.rows.chosen.tolist() == [0, 1, 3, 5]
    assert distinct_vectors(torch.stack([a, b, c]), "source", _CPU, torch.float32).row_of is None


def test_equal_keys_of_different_rows_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda *_args, **_kwargs: torch.zeros(10))
    a, b = _random(2, 10)
    found = distinct_vectors(torch.stack([a, b, a, b]), "source", _CPU, torch.float32)
    assert found.row_of is None or len(found.rows) == 3
    kept = found.rows.on_grid(slice(0, len(found.rows)))
    row_of = torch.arange(4) if found.row_of is None else found.row_of
    again = distinct_vectors(torch.stack([a, b]), "source", _CPU, torch.float32).rows.on_grid(slice(0, 2))
    assert torch.equal(kept[row_of], again[torch.tensor([0, 1, 0, 1])])


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_stored_rows_and_their_distance(stored: torch.dtype) -> None:
    rows = distinct_vectors(_random(9, 33), "source", _CPU, stored).rows
    block = rows.as_stored(slice(4, 9), 8)
    assert block.dtype is stored and block.shape == (8, 33)
    assert torch.equal(block[5:], torch.zeros(3, 33, dtype=stored))
    distance = (block[:5].double() - rows.on_grid(slice(4, 9)) / GRID).norm(dim=1)
    torch.testing.assert_close(rows.residual[4:9], distance)
    bound = rows.as_float32().residual[4:9]
    if stored is torch.float32:
        assert bool((distance <= bound).all()) and bool((bound < 3 * distance.max()).all())


def test_nan_and_infinity_are_refused_by_row() -> None:
    vectors = torch.ones(4, 2)
    vectors[1, 0], vectors[3, 1] = torch.inf, torch.nan
    with pytest.raises(MlkdError, match=r"error\[E601\]: 2 target vectors hold NaN or infinity, first in row 1"):
        distinct_vectors(vectors, "target", _CPU, torch.float32)
