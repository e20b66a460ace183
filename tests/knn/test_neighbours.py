"""Nearest neighbours: exactness, the tie rule, bounded blocks, and the faiss backend."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.knn import faiss_backend
from mlkd.knn.neighbours import Backend, NeighbourSearch
from mlkd.knn.similarity_precision import Precision


def _brute_force(queries: torch.Tensor, corpus: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Full matrix, sorted by (descending cosine, ascending index) in numpy."""
    a, b = queries.numpy().astype(np.float64), corpus.numpy().astype(np.float64)
    a_norm, b_norm = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1, keepdims=True)
    cosine = (a / np.where(a_norm == 0, 1, a_norm)) @ (b / np.where(b_norm == 0, 1, b_norm)).T
    order = np.array([np.lexsort((np.arange(len(b)), -row)) for row in cosine.round(6)])[:, :k]
    return np.take_along_axis(cosine, order, axis=1), order


def _search_in_blocks(side: int, monkeypatch: pytest.MonkeyPatch) -> NeighbourSearch:
    """A search in blocks of about side x side, however few rows there are."""
    monkeypatch.setattr("mlkd.knn.block_search._MAX_EXACT", 0)
    monkeypatch.setattr(NeighbourSearch, "_block_size", lambda search: side**2)
    return NeighbourSearch(device="cpu", precision=Precision.fp32)


@pytest.mark.parametrize("side", [1, 3, 7, 64])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_both_ways_equals_brute_force_for_any_block_size(side: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(7)
    source, target = torch.randn(23, 5, generator=generator), torch.randn(17, 5, generator=generator)
    forward, backward = _search_in_blocks(side, monkeypatch).both_ways(source, target, k)
    for found, (similarity, index) in (
        (forward, _brute_force(source, target, k)),
        (backward, _brute_force(target, source, k)),
    ):
        assert found.index.numpy().tolist() == index.tolist()
        np.testing.assert_allclose(found.similarity.numpy(), similarity, atol=1e-6)
    one_way = NeighbourSearch(device="cpu").one_way(source, target, k)
    assert torch.equal(one_way.index, forward.index)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), side=st.sampled_from([1, 2, 3, 5, 64]), k=st.integers(1, 6))
def test_lowest_index_wins_among_equals(data: st.DataObject, side: int, k: int) -> None:
    # Unit axes and zero rows: cosines are exactly 0 or 1, so nearly everything is tied.
    rows = st.lists(st.integers(0, 3), min_size=1, max_size=12)
    axes = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    source, target = axes[data.draw(rows)], axes[data.draw(rows)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        forward, backward = _search_in_blocks(side, monkeypatch).both_ways(source, target, k)
    assert forward.index.tolist() == _brute_force(source, target, k)[1].tolist()
    assert backward.index.tolist() == _brute_force(target, source, k)[1].tolist()


def test_hand_computed_three_by_three() -> None:
    source = torch.tensor([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0]])
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    forward, backward = NeighbourSearch(device="cpu").both_ways(source, target, 2)
    half = 0.5**0.5
    # Source 2 is equally near to targets 0 and 1: 0 comes first.
    assert forward.index.tolist() == [[1, 0], [0, 1], [0, 1]]
    torch.testing.assert_close(forward.similarity, torch.tensor([[1.0, 0.0], [1.0, 0.0], [half, half]]))
    assert backward.index.tolist() == [[1, 2], [0, 2], [1, 2]]
    torch.testing.assert_close(backward.similarity, torch.tensor([[1.0, half], [1.0, half], [0.0, -half]]))


def test_more_neighbours_than_rows_and_inputs_are_not_changed() -> None:
    source, target = torch.randn(3, 4), torch.randn(2, 4)
    before = source.clone(), target.clone()
    forward, backward = NeighbourSearch(device="cpu").both_ways(source, target, 9)
    assert forward.index.shape == (3, 2) and backward.index.shape == (2, 3)
    assert torch.equal(source, before[0]) and torch.equal(target, before[1])


def test_precision_chosen_for_training_is_put_aside_and_restored() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        NeighbourSearch(device="cpu").both_ways(torch.randn(3, 4), torch.randn(2, 4), 1)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_nan_is_refused_by_row() -> None:
    source = torch.ones(3, 2)
    source[1, 0] = torch.nan
    with pytest.raises(MlkdError, match=r"error\[E601\].*1 source vectors.*row 1"):
        NeighbourSearch(device="cpu").both_ways(source, torch.ones(2, 2), 1)


def test_bad_fields_come_together() -> None:
    with pytest.raises(MlkdError) as caught:
        NeighbourSearch(block_mb=0, device="gpu", num_lists=0, num_probes=-1)
    assert "error[E204]: block_mb: must be >= 1 (got 0)" in str(caught.value)
    assert "error[E204]: num_lists: must be >= 1 (got 0)" in str(caught.value)
    assert "error[E204]: num_probes: must be >= 1 (got -1)" in str(caught.value)
    assert "error[E204]: device: 'gpu' is no device" in str(caught.value)


def test_faiss_gives_the_same_neighbours_ties_included() -> None:
    pytest.importorskip("faiss", reason="faiss is an optional extra")
    generator = torch.Generator().manual_seed(3)
    random = (torch.randn(40, 8, generator=generator), torch.randn(30, 8, generator=generator))
    axes = torch.eye(4)
    tied = (axes[torch.arange(12) % 4], axes[torch.arange(20) % 3])
    for source, target in (random, tied):
        ours = NeighbourSearch(device="cpu").both_ways(source, target, 4)
        faiss = NeighbourSearch(device="cpu", backend=Backend.faiss).both_ways(source, target, 4)
        for expected, found in zip(ours, faiss, strict=True):
            assert torch.equal(expected.index, found.index)
            torch.testing.assert_close(expected.similarity, found.similarity)


def test_inverted_file_measures_what_it_finds(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("faiss", reason="faiss is an optional extra")
    source, target = torch.randn(400, 8), torch.randn(800, 8)
    exact = NeighbourSearch(device="cpu").one_way(source, target, 3)
    assert exact.recall is None
    with caplog.at_level("INFO", logger="mlkd"):
        some = NeighbourSearch(device="cpu", backend=Backend.faiss_ivf, num_lists=20, num_probes=3).one_way(
            source, target, 3
        )
    assert some.recall is not None
    assert some.recall.num_rows == 400
    assert some.recall.at_1 == pytest.approx(float((some.index[:, 0] == exact.index[:, 0]).double().mean()))
    found = (exact.index[:, :, None] == some.index[:, None, :]).any(dim=2).double().mean()
    assert some.recall.at_k == pytest.approx(float(found))
    assert 0.3 < some.recall.at_k < 1
    assert f"faiss_ivf finds {100 * some.recall.at_1:.2f}% of the nearest" in caplog.text
    everywhere = NeighbourSearch(device="cpu", backend=Backend.faiss_ivf, num_lists=20, num_probes=20)
    for found_all, expected in zip(
        everywhere.both_ways(source, target, 3), NeighbourSearch(device="cpu").both_ways(source, target, 3), strict=True
    ):
        assert torch.equal(found_all.index, expected.index) and torch.equal(found_all.similarity, expected.similarity)
        assert found_all.recall is not None and found_all.recall.at_k == 1


def test_inverted_file_of_a_few_rows_finds_enough() -> None:
    pytest.importorskip("faiss", reason="faiss is an optional extra")
    source, target = torch.randn(90, 4), torch.randn(200, 4)
    # One list of the five holds fewer than 60 rows: the rest is searched exactly.
    found = NeighbourSearch(device="cpu", backend=Backend.faiss_ivf, num_lists=5, num_probes=1).one_way(
        source, target, 60
    )
    assert found.index.shape == (90, 60)
    assert int(found.index.min()) >= 0
    assert bool(torch.isfinite(found.similarity).all())


def test_faiss_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_faiss(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", no_faiss)
    with pytest.raises(MlkdError, match=r"error\[E502\][\s\S]*pip install 'mlkd\[cpu\]'"):
        NeighbourSearch(backend=Backend.faiss).both_ways(torch.ones(2, 2), torch.ones(2, 2), 1)
    NeighbourSearch(device="cpu").both_ways(torch.ones(2, 2), torch.ones(2, 2), 1)


def test_two_faiss_wheels_name_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_backend, "_is_installed", lambda wheel: wheel in ("faiss-cpu", "faiss-gpu"))
    with pytest.raises(MlkdError, match=r"error\[E502\][\s\S]*pip uninstall -y faiss-cpu faiss-gpu &&"):
        faiss_backend.import_faiss()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_neighbours() -> None:
    source, target = torch.randn(500, 64), torch.randn(400, 64)
    ours = NeighbourSearch(device="cpu").both_ways(source, target, 4)
    torch.set_float32_matmul_precision("high")
    try:
        cuda = NeighbourSearch(device="cuda").both_ways(source, target, 4)
    finally:
        torch.set_float32_matmul_precision("highest")
    for expected, found in zip(ours, cuda, strict=True):
        torch.testing.assert_close(expected.similarity, found.similarity, atol=1e-6, rtol=0)
