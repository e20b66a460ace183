"""Leaks between training and evaluation."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.overlap import Overlap, evaluation_overlap, match_key
from mlkd.data.pairs import LanguagePair

TRAIN = [
    LanguagePair("en", "de", ["Good morning!", "It rains."], ["Guten Morgen!", "Es regnet."]),
    LanguagePair("en", "zh", ["Thank you."], ["谢谢。"]),
]


def test_case_punctuation_and_spacing_do_not_hide_a_leak(caplog: pytest.LogCaptureFixture) -> None:
    evaluation = {"dev": ["good  morning", "ES REGNET!!", "谢谢", "Something else"], "clean": ["New text."], "none": []}
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        overlap = evaluation_overlap(TRAIN, evaluation)
    assert overlap["dev"] == Overlap(3, 4, ("good  morning", "ES REGNET!!", "谢谢"))
    assert overlap["clean"] == Overlap(0, 1)
    assert overlap["none"] == Overlap(0, 0)
    (record,) = caplog.records
    assert record.getMessage() == "warning[W315]: 3 of 4 dev sentences occur in training, e.g. 'good  morning'"


def test_sentences_are_counted_once() -> None:
    assert evaluation_overlap(TRAIN, {"dev": ["It rains.", "it rains", "It rains!"]}, warn=False)["dev"].total == 1


def test_nothing_to_compare() -> None:
    assert evaluation_overlap(TRAIN, {}) == {}
    assert evaluation_overlap([], {"dev": ["a"]}) == {"dev": Overlap(0, 1)}


def test_marks_of_indic_and_thai_script_are_letters() -> None:
    assert match_key("कि") != match_key("का")
    assert match_key("มี") != match_key("มา")


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_a_text_matches_itself_whatever_stands_around_it(text: str, other: str) -> None:
    assert match_key(text) == match_key(text)
    if match_key(text).isalnum():
        assert match_key(f" ({text})... ") == match_key(text)
    pair = LanguagePair("en", "de", [other, text], ["x", "y"])
    assert evaluation_overlap([pair], {"set": [text]}, warn=False)["set"].found == 1
