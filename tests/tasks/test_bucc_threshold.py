"""Thresholds of mined pairs: the best cut by hand, and what it keeps when it is applied."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlkd.tasks.bucc.protocols import Ranking
from mlkd.tasks.bucc.results import kept_from
from mlkd.tasks.bucc.threshold import fit_threshold


def _apply(
    score: torch.Tensor, is_correct: torch.Tensor, num_gold: int, threshold: float
) -> tuple[float, float, float]:
    """F1, precision and recall, as fractions of 1, of what is kept from the threshold on."""
    kept = kept_from(Ranking([], score, is_correct, num_gold), threshold)
    num_kept, num_correct = int(kept.sum()), int((kept & is_correct).sum())
    precision = num_correct / num_kept if num_kept else 0.0
    return 2 * num_correct / (num_kept + num_gold), precision, num_correct / num_gold


def test_threshold_is_midway_at_the_first_best_cut() -> None:
    score = torch.tensor([5.0, 4.0, 3.0, 2.0])
    # F1 of the cuts with 3 gold pairs: 2/4, 4/5, 4/6, 6/7.
    fit = fit_threshold(score[:3], torch.tensor([True, True, False]), 3)
    assert (fit.threshold, fit.precision, fit.f1) == (3.5, 1.0, 0.8)
    assert fit.recall == pytest.approx(2 / 3)
    # Equal F1 at the first and the last cut (2/4 = 4/8 with 3 and 5 kept): the first is taken.
    fit = fit_threshold(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, False, False, True]), 3)
    assert (fit.threshold, fit.f1) == (4.5, 0.5)


def test_threshold_at_the_last_pair_is_its_score() -> None:
    fit = fit_threshold(torch.tensor([5.0, 4.0]), torch.tensor([True, True]), 2)
    assert (fit.threshold, fit.f1) == (4.0, 1.0)
    assert _apply(torch.tensor([5.0, 4.0]), torch.tensor([True, True]), 2, fit.threshold) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("is_correct", [[], [False, False]])
def test_nothing_right_keeps_nothing(is_correct: list[bool]) -> None:
    score = torch.arange(len(is_correct), 0, -1).float()
    flags = torch.tensor(is_correct, dtype=torch.bool)
    fit = fit_threshold(score, flags, 2)
    assert fit.threshold == float("inf") and fit.f1 == 0
    assert _apply(score, flags, 2, fit.threshold) == (0.0, 0.0, 0.0)


@given(
    rows=st.lists(st.tuples(st.floats(-2, 2, width=32), st.booleans()), max_size=30),
    extra_gold=st.integers(0, 5),
    threshold=st.floats(-2, 2),
)
def test_no_threshold_beats_the_fitted_one(rows: list[tuple[float, bool]], extra_gold: int, threshold: float) -> None:
    rows = sorted(rows, key=lambda row: -row[0])
    score = torch.tensor([row[0] for row in rows])
    is_correct = torch.tensor([row[1] for row in rows], dtype=torch.bool)
    num_gold = int(is_correct.sum()) + extra_gold
    if num_gold == 0:
        return
    fit = fit_threshold(score, is_correct, num_gold)
    assert _apply(score, is_correct, num_gold, threshold)[0] <= fit.f1 + 1e-12
    if len(set(score.tolist())) == len(rows):
        assert _apply(score, is_correct, num_gold, fit.threshold) == (fit.f1, fit.precision, fit.recall)
