"""Stored token ids are those of tokenising directly, and are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data import token_store as tokens
from mlkd.data.token_store import TokenIds, TokenStore


def characters(texts: Sequence[str]) -> list[TokenIds]:
    return [np.array([ord(c) for c in text], dtype=np.int32) for text in texts]


def forbidden(texts: Sequence[str]) -> list[TokenIds]:
    raise AssertionError("tokenised again")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=12))
def test_the_store_gives_what_the_tokenizer_gives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("cache")
    for tokenize in (characters, forbidden):
        store = TokenStore.open_or_build(folder, texts, tokenize, "characters")
        assert len(store) == len(texts)
        assert [store[i].tolist() for i in range(len(store))] == [[ord(c) for c in t] for t in texts]
        assert store.lengths().tolist() == [len(t) for t in texts]
        assert store.ids.dtype == np.int32


def test_texts_go_to_the_tokenizer_in_blocks_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "BLOCK", 3)
    asked: list[list[str]] = []

    def tokenize(texts: Sequence[str]) -> list[TokenIds]:
        asked.append(list(texts))
        return characters(texts)

    store = TokenStore.open_or_build(tmp_path, list("abcdefgh"), tokenize, "key")
    assert asked == [list("abc"), list("def"), list("gh")]
    assert store.ids.tolist() == [ord(c) for c in "abcdefgh"]


def test_another_tokenizer_or_another_order_of_texts_is_another_store(tmp_path: Path) -> None:
    texts = ["ab", "c"]
    TokenStore.open_or_build(tmp_path, texts, characters, "one")
    for other_texts, key in ((texts, "two"), (texts[::-1], "one"), (["a", "bc"], "one"), (["ab"], "one")):
        with pytest.raises(AssertionError, match="tokenised again"):
            TokenStore.open_or_build(tmp_path, other_texts, forbidden, key)


def test_a_build_that_failed_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        TokenStore.open_or_build(tmp_path, ["ab"], forbidden, "key")
    assert list((tmp_path / "tokens").iterdir()) == []
    store = TokenStore.open_or_build(tmp_path, ["ab"], characters, "key")
    assert store[0].tolist() == [97, 98]
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_two_runs_may_build_the_same_store(tmp_path: Path) -> None:
    def meanwhile(texts: Sequence[str]) -> list[TokenIds]:
        if not list(tmp_path.rglob("done.json")):
            TokenStore.open_or_build(tmp_path, ["ab"], characters, "key")
        return characters(texts)

    store = TokenStore.open_or_build(tmp_path, ["ab"], meanwhile, "key")
    assert store[0].tolist() == [97, 98]
    assert len(list((tmp_path / "tokens").iterdir())) == 1
