"""Margins on hand-computed 3 x 3 similarities."""

from __future__ import annotations

import pytest
import torch

from mlkd.knn.margins import Margin, margin_scores
from mlkd.knn.neighbours import Neighbours

# Cosines: rows are sources, columns targets.
#        y0   y1   y2
#   x0   0.9  0.5  0.1     k = 2: x means 0.70, 0.65, 0.50
#   x1   0.6  0.7  0.2            y means 0.75, 0.65, 0.30
#   x2   0.3  0.6  0.4
FORWARD = Neighbours(torch.tensor([[0.9, 0.5], [0.7, 0.6], [0.6, 0.4]]), torch.tensor([[0, 1], [1, 0], [1, 2]]))
BACKWARD_MEAN = torch.tensor([0.75, 0.65, 0.3])


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (Margin.absolute, [[0.9, 0.5], [0.7, 0.6], [0.6, 0.4]]),
        (
            Margin.distance,
            [
                [0.9 - (0.7 + 0.75) / 2, 0.5 - (0.7 + 0.65) / 2],
                [0.7 - (0.65 + 0.65) / 2, 0.6 - (0.65 + 0.75) / 2],
                [0.6 - (0.5 + 0.65) / 2, 0.4 - (0.5 + 0.3) / 2],
            ],
        ),
        (
            Margin.ratio,
            [
                [0.9 / ((0.7 + 0.75) / 2), 0.5 / ((0.7 + 0.65) / 2)],
                [0.7 / ((0.65 + 0.65) / 2), 0.6 / ((0.65 + 0.75) / 2)],
                [0.6 / ((0.5 + 0.65) / 2), 0.4 / ((0.5 + 0.3) / 2)],
            ],
        ),
    ],
)
def test_hand_computed(margin: Margin, expected: list[list[float]]) -> None:
    torch.testing.assert_close(margin_scores(FORWARD, BACKWARD_MEAN, margin), torch.tensor(expected))


def test_ratio_over_nothing_is_zero() -> None:
    zero = Neighbours(torch.zeros(1, 2), torch.tensor([[0, 1]]))
    assert margin_scores(zero, torch.zeros(2), Margin.ratio).tolist() == [[0.0, 0.0]]
