"""The score from which a mined pair is kept: the cut of a ranking with the best F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """A threshold and what the pairs from it on reach, as fractions of 1."""

    threshold: float
    f1: float
    precision: float
    recall: float


def fit_threshold(score: Tensor, is_correct: Tensor, num_gold: int) -> ThresholdFit:
    """The cut of a ranking with the best F1; the first of several equal ones.

    Args:
        score: (P,) descending.
        is_correct: (P,) bool, whether the pair is in the gold set.
        num_gold: size of the gold set, at least 1.

    Returns:
        The threshold lies midway between the last pair kept and the next one, or on the last pair of all. Where no
        pair is correct, everything is 0 and the threshold is infinite: nothing is kept.

    >>> import torch
    >>> fit = fit_threshold(torch.tensor([4.0, 3.0, 2.0]), torch.tensor([True, False, False]), 2)
    >>> fit.threshold, fit.precision, fit.recall
    (3.5, 1.0, 0.5)
    """
    assert num_gold >= 1, "a threshold needs gold pairs"
    correct: NDArray[np.int64] = np.cumsum(is_correct.numpy().astype(np.int64))
    if len(correct) == 0 or correct[-1] == 0:
        return ThresholdFit(float("inf"), 0.0, 0.0, 0.0)
    extracted = np.arange(1, len(correct) + 1)
    # F1 = 2PR / (P + R) = 2 correct / (extracted + gold); argmax takes the first, as "at a strict improvement" does.
    f1 = 2 * correct / (extracted + num_gold)
    last = int(f1.argmax())
    following = min(last + 1, len(correct) - 1)
    threshold = (float(score[last]) + float(score[following])) / 2
    return ThresholdFit(
        threshold, float(f1[last]), float(correct[last] / extracted[last]), float(correct[last] / num_gold)
    )
