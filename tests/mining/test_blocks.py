"""Vectors and neighbours in blocks on disk: the same numbers however they are cut, and no half of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.mining import neighbour_blocks as neighbours
from mlkd.mining import vector_blocks as vectors
from mlkd.mining.neighbour_blocks import NeighbourBlocks
from mlkd.mining.vector_blocks import VectorBlocks
from mlkd.runtime.atomic_files import write_array

SEARCH = NeighbourSearch(device="cpu")


def table(texts: Sequence[str]) -> Tensor:
    """A vector that depends on the text before its '#' alone, so that many texts share one."""
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(text.split("#")[0].encode()).digest()[:8], "little")
        rows.append(np.random.default_rng(seed).normal(size=6))
    return torch.tensor(np.array(rows), dtype=torch.float32)


def encoded(texts: Sequence[str], folder: Path) -> VectorBlocks:
    blocks = VectorBlocks(texts, folder)
    for block in blocks.missing():
        blocks.encode(block, table)
    return blocks


def test_rows_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK_SENTENCES", 4)
    texts = [f"text {n}" for n in range(11)]
    blocks = VectorBlocks(texts, tmp_path)
    assert (len(blocks), blocks.missing()) == (3, [0, 1, 2])
    assert blocks.encode(1, table) == 4
    assert blocks.missing() == [0, 2]
    assert blocks.encode(2, table) == 3
    blocks.encode(0, table)
    for start, stop in ((0, 11), (3, 5), (4, 8), (10, 11), (0, 1)):
        assert torch.equal(blocks.rows(start, stop), table(texts[start:stop]))
    assert VectorBlocks(texts, tmp_path).missing() == []
    assert VectorBlocks([*texts[:-1], "other"], tmp_path).missing() == [2]


def test_vectors_that_are_not_numbers(tmp_path: Path) -> None:
    blocks = VectorBlocks(["fine", "broken"], tmp_path)
    with pytest.raises(MlkdError, match=r"E601.*1 of 2 vectors hold NaN or infinity, first for 'broken'"):
        blocks.encode(0, lambda texts: torch.tensor([[1.0], [float("nan")]]))
    assert blocks.missing() == [0]


def test_damaged_vectors_are_named(tmp_path: Path) -> None:
    blocks = encoded(["a", "b", "c"], tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MlkdError, match=r"(?s)E320.*delete this file") as caught:
        blocks.rows(0, 3)
    assert str(path) in str(caught.value)
    write_array(path, np.zeros((2, 6), dtype=np.float32))
    with pytest.raises(MlkdError, match=r"2 vectors of 3 sentences"):
        blocks.rows(0, 3)


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_array(tmp_path / "x.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 3, 7, 40])
@pytest.mark.parametrize(("num_source", "num_target", "k"), [(23, 17, 4), (5, 1, 3), (2, 30, 4), (9, 9, 1)])
def test_neighbours_do_not_depend_on_blocks(
    *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, num_source: int, num_target: int, k: int
) -> None:
    source = [f"{n % 6}#{n}" for n in range(num_source)]  # six vectors: nearly every similarity is tied
    target = [f"{n % 4}#t{n}" for n in range(num_target)]
    expected = SEARCH.both_ways(table(source), table(target), k)
    monkeypatch.setattr(neighbours, "BLOCK_SENTENCES", size)
    monkeypatch.setattr(neighbours, "_MERGED_ROWS", 5)
    sides = encoded(source, tmp_path / "v"), encoded(target, tmp_path / "v")
    blocks = NeighbourBlocks(*sides, SEARCH, k, tmp_path / "n")
    todo = blocks.missing()
    assert len(todo) == len(blocks) == -(-num_source // size)
    for block in reversed(todo):
        blocks.search_block(block)
    assert blocks.missing() == []
    for found, wanted in zip(blocks.merged(), expected, strict=True):
        assert torch.equal(found.index, wanted.index)
        assert torch.equal(found.similarity, wanted.similarity)


def test_searches_of_other_settings_are_kept_apart(tmp_path: Path) -> None:
    one, two = encoded(["a", "b"], tmp_path / "v"), encoded(["c"], tmp_path / "v")
    NeighbourBlocks(one, two, SEARCH, 2, tmp_path / "n").search_block(0)
    assert NeighbourBlocks(one, two, SEARCH, 2, tmp_path / "n").missing() == []
    assert NeighbourBlocks(one, two, SEARCH, 1, tmp_path / "n").missing() == [0]
    assert NeighbourBlocks(two, one, SEARCH, 2, tmp_path / "n").missing() == [0]


def test_damaged_neighbours_are_named(tmp_path: Path) -> None:
    blocks = NeighbourBlocks(encoded(["a", "b"], tmp_path), encoded(["c"], tmp_path), SEARCH, 2, tmp_path / "n")
    blocks.search_block(0)
    write_array(next((tmp_path / "n").rglob("backward-*.npy")), np.zeros(1))
    with pytest.raises(MlkdError, match=r"E320.*1 rows of float64, not 1"):
        blocks.merged()
