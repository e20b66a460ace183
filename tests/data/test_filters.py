"""Normalising and filtering pairs."""

import logging
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.filters import Limits, filter_pairs, normalise
from mlkd.data.pairs import RawPairs


def filtered(pairs: list[tuple[str, str]], **limits: object) -> tuple[list[tuple[str, str]], dict[str, int]]:
    raw = RawPairs([source for source, _ in pairs], [target for _, target in pairs], "a.tsv")
    kept, dropped = filter_pairs(raw, Limits(**limits))  # type: ignore[arg-type]
    return kept, dict(dropped)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_normalised_text_is_nfc_and_stays_so(text: str) -> None:
    once = normalise(text)
    assert unicodedata.is_normalized("NFC", once)
    assert normalise(once) == once


def test_empty_sides_are_counted() -> None:
    assert filtered([("a", "b"), ("", "b"), ("a", " \u3000")]) == ([("a", "b")], {"empty": 2})


def test_lengths_of_either_side() -> None:
    pairs = [("ab", "abc"), ("a", "abc"), ("abc", "abcdef"), ("abcde", "ab")]
    assert filtered(pairs, min_chars=2, max_chars=5) == ([pairs[0], pairs[3]], {"too_short": 1, "too_long": 1})


def test_length_is_that_of_the_normalised_text() -> None:
    assert filtered([("  e\u0301  ", "b")], max_chars=1) == ([("é", "b")], {})


def test_length_ratio() -> None:
    pairs = [("aa", "bbbb"), ("bbbbb", "aa")]
    assert filtered(pairs, max_length_ratio=2.0) == ([pairs[0]], {"length_ratio": 1})


def test_identical_sides() -> None:
    assert filtered([("OK", "OK"), ("ok", "OK")], drop_identical=True) == ([("ok", "OK")], {"identical": 1})
    assert filtered([("OK", "OK")]) == ([("OK", "OK")], {})


def test_duplicates_are_exact_pairs_after_normalisation() -> None:
    pairs = [("a", "b"), ("a ", "b"), ("a", "c"), ("A", "b")]
    assert filtered(pairs) == ([("a", "b"), ("a", "c"), ("A", "b")], {"duplicate": 1})
    assert len(filtered(pairs, drop_duplicates=False)[0]) == 4


def test_a_line_of_over_a_million_characters_is_left_out_even_without_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        kept, dropped = filtered([("a", "b"), ("c" * 1_000_001, "d"), ("e" * 1_000_000, "f")])
    assert [len(source) for source, _ in kept] == [1, 1_000_000]
    assert dropped == {"over_a_million_chars": 1}
    assert "a.tsv:2: " in caplog.text


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8))),
    st.integers(0, 3),
    st.integers(3, 8),
    st.sampled_from([None, 1.5]),
    st.booleans(),
)
def test_every_pair_is_kept_or_counted(
    pairs: list[tuple[str, str]], least: int, most: int, ratio: float | None, flag: bool
) -> None:
    kept, dropped = filtered(
        pairs, min_chars=least, max_chars=most, max_length_ratio=ratio, drop_identical=flag, drop_duplicates=not flag
    )
    assert len(kept) + sum(dropped.values()) == len(pairs)
    assert all(0 < len(side) <= most for pair in kept for side in pair)
