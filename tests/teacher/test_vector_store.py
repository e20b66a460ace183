"""Vectors are found by their text; half-written shards are as if they were not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.teacher.vector_store import VectorStore, text_keys


def vectors_of(texts: list[str], dimension: int = 3) -> torch.Tensor:
    return torch.tensor([[float(len(t)), float(sum(map(ord, t))), float(i)] for i, t in enumerate(texts)])[
        :, :dimension
    ]


def test_what_was_appended_is_found_in_any_order_and_by_another_process(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "lä b")
    assert store.positions(["a"]).tolist() == [-1]
    first, second = ["a", "bb", "ccc"], ["dddd", "ü", ""]
    store.append(first, vectors_of(first))
    store.append(second, vectors_of(second))
    assert store.positions(["a"]).tolist() == [-1]  # until it is reloaded
    store.reload()
    wanted = ["ü", "a", "dddd", "a", "ccc", ""]
    expected = torch.cat([vectors_of(first), vectors_of(second)])[[4, 0, 3, 0, 2, 5]]
    for reader in (store, VectorStore(tmp_path / "lä b")):
        assert torch.equal(reader.rows(reader.positions(wanted)), expected)
        assert reader.positions(["missing", "a", "A"]).tolist()[0::2] == [-1, -1]
        assert reader.dimension == 3
        assert reader.rows(reader.positions(wanted)).dtype is torch.float32
    assert store.positions([]).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab\0\x01 é", max_size=6), unique=True, min_size=1, max_size=12))
def test_every_text_finds_its_own_row(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    store = VectorStore(tmp_path_factory.mktemp("store"))
    vectors = torch.arange(2.0 * len(texts)).view(-1, 2)
    half = len(texts) // 2
    for part in (slice(0, half), slice(half, None)):
        if texts[part]:
            store.append(texts[part], vectors[part])
    store.reload()
    assert torch.equal(store.rows(store.positions(texts)), vectors)


def test_keys_of_different_texts_differ() -> None:
    texts = ["a", "a\0", "a\0\0", "", "\0", "a ", " a", "ä", "a\u0308", *map(str, range(3000))]
    keys = text_keys(texts)
    assert len(set(keys.tolist())) == len(texts)
    # numpy drops trailing zero bytes, so a key that ended in one would equal a shorter key.
    assert {len(key) for key in keys.tolist()} == {16}
    assert len(text_keys([])) == 0


def test_a_half_written_shard_is_ignored(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.append(["a"], vectors_of(["a"]))
    np.save(tmp_path / "half.npy", np.zeros((2, 3), np.float32))  # killed before the keys were there
    (tmp_path / "half.keys.123.tmp").write_bytes(b"x" * 16)
    (tmp_path / "other.npy.123.tmp").write_bytes(b"\x93NUM")
    again = VectorStore(tmp_path)
    assert torch.equal(again.rows(again.positions(["a"])), vectors_of(["a"]))


def test_keys_and_vectors_that_differ_in_number_are_refused(tmp_path: Path) -> None:
    VectorStore(tmp_path).append(["a", "b"], vectors_of(["a", "b"]))
    (keys,) = tmp_path.glob("*.keys")
    keys.write_bytes(keys.read_bytes()[:16])
    with pytest.raises(MlkdError) as caught:
        VectorStore(tmp_path)
    (problem,) = caught.value.problems
    assert problem.code == "E320" and "1 keys but 2 vectors" in problem.what and str(keys) in problem.remedy


def test_the_same_texts_may_be_written_twice(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.append(["a", "b"], vectors_of(["a", "b"]))
    store.append(["b", "c"], vectors_of(["b", "c"]))
    store.append(["a", "b"], vectors_of(["a", "b"]))
    store.reload()
    assert store.rows(store.positions(["a", "b", "c"]))[:, :2].tolist() == [[1, 97], [1, 98], [1, 99]]
    assert not list(tmp_path.glob("*.tmp"))
