"""The warning of terms that move nothing."""

from __future__ import annotations

import logging

import pytest

from mlkd.losses.gradient_shares import NegligibleTerms, negligible_warning


def test_a_term_is_warned_of_once_after_five_negligible_steps_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    negligible = NegligibleTerms()
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        for share in (0.001, 0.001, 0.001, 0.001, 0.02, 0.001, 0.001, 0.001, 0.001):
            negligible.observe({"ranking": 1 - share, "similarity": share})
        assert caplog.messages == []
        for _ in range(7):
            negligible.observe({"ranking": 0.998, "similarity": 0.002})
    assert len(caplog.messages) == 1
    assert "similarity term has 0.2%" in caplog.messages[0]
    assert "loss.gamma times 55" in caplog.messages[0]
    assert "loss.temperature" in caplog.messages[0]


def test_the_advised_weight_gives_a_tenth() -> None:
    share = 0.004
    factor = float(negligible_warning("feature", share).split("loss.beta times ")[1].split(" ")[0])
    assert factor * share / (factor * share + 1 - share) == pytest.approx(0.1, rel=0.03)  # two digits are printed


def test_a_single_term_and_a_term_without_gradient(caplog: pytest.LogCaptureFixture) -> None:
    negligible = NegligibleTerms()
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        for _ in range(9):
            negligible.observe({"feature": 0.0})  # alone it cannot be weak beside others
        assert caplog.messages == []
        for _ in range(9):
            negligible.observe({"ranking": 1.0, "masked_lm": 0.0})
    assert caplog.messages == [
        "the masked_lm term has 0% of the gradient: it hardly moves the student, whatever its weight"
    ]
