"""Pairs as indices: each text once, sources first, languages one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlkd.data.pairs import LanguagePair
from mlkd.data.training_pairs import TrainingPairs


def language_pair(language: str, rows: list[tuple[str, str]]) -> LanguagePair:
    return LanguagePair("en", language, [x for x, _ in rows], [y for _, y in rows])


def test_indices_by_hand() -> None:
    german = language_pair("de", [("cat", "Katze"), ("dog", "Hund"), ("taxi", "taxi")])
    spanish = language_pair("es", [("dog", "perro"), ("sun", "sol"), ("cat", "dog")])
    pairs = TrainingPairs.from_corpus([german, spanish])
    assert pairs.texts == ["cat", "dog", "taxi", "sun", "Katze", "Hund", "perro", "sol"]
    assert pairs.num_sources == 4
    assert pairs.source.tolist() == [0, 1, 2, 1, 3, 0]
    assert pairs.target.tolist() == [4, 5, 2, 6, 7, 1]
    assert pairs.language_sizes == [3, 3]


ROWS = st.lists(st.tuples(st.text("abc", max_size=2), st.text("abx", max_size=2)), max_size=8)


@given(ROWS, ROWS)
def test_indices_lead_back_to_the_texts(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    pairs = TrainingPairs.from_corpus([language_pair("de", first), language_pair("es", second)])
    rows = [*first, *second]
    assert [(pairs.texts[s], pairs.texts[t]) for s, t in zip(pairs.source, pairs.target, strict=True)] == rows
    assert len(set(pairs.texts)) == len(pairs.texts)
    assert set(pairs.texts) == {text for row in rows for text in row}
    assert set(pairs.texts[: pairs.num_sources]) == {source for source, _ in rows}
    assert pairs.source.dtype == pairs.target.dtype == "int64"
