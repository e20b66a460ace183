"""Bit-equal neighbours from every backend, precision and block size, against whole-number arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.knn import block_search as blocks
from mlkd.knn.neighbours import Backend, Neighbours, NeighbourSearch
from mlkd.knn.similarity_precision import Precision

_BLOCK_SIZE = 2 * 64**2


def _reference(queries: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers of 2^-26, dot products in int64, all of them sorted."""
    a, b = (_grid(rows) for rows in (queries, items))
    similarity = torch.from_numpy(((a @ b.T).astype(np.float64) * 2.0**-52).astype(np.float32))
    ordered = similarity.sort(dim=1, descending=True, stable=True)
    return ordered.values[:, :k], ordered.indices[:, :k]


def _grid(rows: Tensor) -> np.ndarray:
    values = rows.numpy().astype(np.float64)
    norm = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return np.rint(values * (2.0**26 / np.where(norm == 0, np.inf, norm))).astype(np.int64)


def _random(num: int, dim: int, seed: int) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


def _repeated(num: int, seed: int) -> Tensor:
    picks = torch.randint(25, (num,), generator=torch.Generator().manual_seed(seed))
    return _random(25, 16, 0)[picks]


def _of_all_lengths(num: int, seed: int) -> Tensor:
    rows = _random(num, 16, seed) * 10.0 ** torch.randint(-30, 30, (num, 1), generator=torch.Generator().manual_seed(1))
    rows[::7] = 0
    return rows


def _almost_orthogonal() -> tuple[Tensor, Tensor]:
    """The fourth best cosine of a source lies about zero, where rounding turns signs."""
    axis = torch.nn.functional.normalize(_random(1, 48, 4))
    noise = torch.nn.functional.normalize(_random(260, 48, 2))
    return axis + 1e-3 * _random(300, 48, 1), noise - (noise @ axis.T) * axis - 0.002 * axis


_CASES: dict[str, tuple[Tensor, Tensor]] = {
    "random": (_random(300, 48, 1), _random(260, 48, 2)),
    "alike": (_random(300, 48, 1) + 1.5, _random(260, 48, 2) + 1.5),
    "opposite": (_random(300, 48, 1) + 1.5, _random(260, 48, 2) - 1.5),
    "nearly equal": (_random(1, 48, 1) + 1e-3 * _random(300, 48, 2), _random(1, 48, 1) + 1e-3 * _random(260, 48, 3)),
    "equal but for the last bits": (1 + 1e-7 * _random(300, 48, 2), 1 + 1e-7 * _random(260, 48, 3)),
    "almost orthogonal": _almost_orthogonal(),
    "on a circle": (_random(300, 2, 1), _random(260, 2, 2)),
    "one dimension": (_random(300, 1, 1), _random(260, 1, 2)),
    "repeated": (_repeated(300, 1), _repeated(260, 2)),
    "one row, many times": (torch.ones(300, 5), torch.ones(260, 5)),
    "of all lengths": (_of_all_lengths(300, 1), _of_all_lengths(260, 2)),
    "zeros": (torch.zeros(300, 3), torch.zeros(260, 3)),
    "drifting": (_random(300, 8, 1), torch.linspace(-3, 3, 260)[:, None] + _random(260, 8, 2)),
    "one against many": (_random(1, 8, 1), _random(260, 8, 2)),
    "many against three": (_random(300, 8, 1), _random(3, 8, 2)),
}
_SEARCHES: dict[str, Callable[[], NeighbourSearch]] = {
    "fp32": lambda: NeighbourSearch(device="cpu", precision=Precision.fp32),
    "bf16": lambda: NeighbourSearch(device="cpu", precision=Precision.bf16),
    "faiss": lambda: NeighbourSearch(device="cpu", backend=Backend.faiss),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MAX_EXACT", 0)
    monkeypatch.setattr(NeighbourSearch, "_block_size", lambda search: _BLOCK_SIZE)


def _assert_equal(found: Neighbours, expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(found.similarity, expected[0])
    assert torch.equal(found.index, expected[1])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("search", _SEARCHES)
@pytest.mark.parametrize("case", _CASES)
def test_bit_equal_to_whole_number_arithmetic(case: str, search: str) -> None:
    if search == "faiss":
        pytest.importorskip("faiss", reason="faiss is an optional extra")
    source, target = _CASES[case]
    for k in (1, 4, 20, 1000):
        forward, backward = _SEARCHES[search]().both_ways(source, target, k)
        _assert_equal(forward, _reference(source, target, k))
        _assert_equal(backward, _reference(target, source, k))
        _assert_equal(_SEARCHES[search]().one_way(source, target, k), _reference(source, target, k))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), k=st.integers(1, 5), side=st.sampled_from([2, 4, 16]), precision=st.sampled_from(["fp32", "bf16"])
)
def test_bit_equal_for_small_whole_numbers(data: st.DataObject, k: int, side: int, precision: str) -> None:
    # Few directions, so that ties, repetitions, zero rows and proportional rows abound.
    rows = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=14)
    source, target = (torch.tensor(data.draw(rows), dtype=torch.float32) for _ in range(2))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(blocks, "_MAX_EXACT", 0)
        monkeypatch.setattr(NeighbourSearch, "_block_size", lambda search: 2 * side**2)
        forward, backward = _SEARCHES[precision]().both_ways(source, target, k)
    _assert_equal(forward, _reference(source, target, k))
    _assert_equal(backward, _reference(target, source, k))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("case", "is_hard"), [("random", False), ("equal but for the last bits", True)])
def test_what_low_precision_cannot_decide_is_decided_exactly(
    case: str, is_hard: bool, precision: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_open: list[int] = []

    def exact_top_k(queries: Any, *arguments: Any) -> Any:
        left_open.append(len(queries))
        return found_exactly(queries, *arguments)

    found_exactly = blocks.exact_top_k
    monkeypatch.setattr(blocks, "exact_top_k", exact_top_k)
    _SEARCHES[precision]().both_ways(*_CASES[case], 4)
    assert sum(left_open) == (560 if is_hard else 0)


def test_real_blocks_and_more_than_one_stripe() -> None:
    source, target = _random(4500, 8, 1), _random(1200, 8, 2)
    expected = _reference(source, target, 3), _reference(target, source, 3)
    for precision in ("fp32", "bf16"):
        search = _SEARCHES[precision]()
        search.block_mb = 1
        for found, wanted in zip(search.both_ways(source, target, 3), expected, strict=True):
            _assert_equal(found, wanted)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("stored_bytes", [0, 2**28])
def test_targets_are_kept_or_converted_again(stored_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_STORED_BYTES", stored_bytes)
    source, target = _CASES["repeated"]
    _assert_equal(_SEARCHES["bf16"]().both_ways(source, target, 4)[0], _reference(source, target, 4))


@pytest.mark.usefixtures("small_blocks")
def test_any_layout_and_type_of_vectors() -> None:
    source, target = _CASES["random"]
    half = source.half()
    forward = NeighbourSearch(device="cpu").one_way(half, target.T.contiguous().T.requires_grad_(), 4)
    _assert_equal(forward, _reference(half.float(), target, 4))


def test_tf32_needs_a_gpu_that_has_it() -> None:
    with pytest.raises(MlkdError, match=r"error\[E501\]: search.precision=tf32, but cpu has no TF32"):
        NeighbourSearch(device="cpu", precision=Precision.tf32).one_way(torch.ones(2, 2), torch.ones(2, 2), 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("case", _CASES)
def test_cuda_is_bit_equal(case: str, precision: str) -> None:
    source, target = _CASES[case]
    search = NeighbourSearch(device="cuda", precision=Precision[precision])
    forward, backward = search.both_ways(source, target, 4)
    _assert_equal(forward, _reference(source, target, 4))
    _assert_equal(backward, _reference(target, source, 4))
