"""Retrieval and thresholds: hand-computed cases, and agreement with a plain greedy loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlkd.knn import retrieval
from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import Neighbours
from mlkd.knn.retrieval import Candidates, Retrieval, retrieve

# The cosines of test_margins.py, k = 3. Forward best: x0-y0 .9, x1-y1 .7, x2-y1 .6.
# Backward best: y0-x0 .9, y1-x1 .7, y2-x2 .4.
FORWARD = Neighbours(
    torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.6, 0.2], [0.6, 0.4, 0.3]]),
    torch.tensor([[0, 1, 2], [1, 0, 2], [1, 2, 0]]),
)
BACKWARD = Neighbours(
    torch.tensor([[0.9, 0.6, 0.3], [0.7, 0.6, 0.5], [0.4, 0.2, 0.1]]),
    torch.tensor([[0, 1, 2], [1, 2, 0], [2, 1, 0]]),
)


def _triples(candidates: Candidates) -> list[tuple[int, int, float]]:
    columns = (candidates.source.tolist(), candidates.target.tolist(), candidates.score.tolist())
    return [(source, target, round(score, 4)) for source, target, score in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    ("retrieval", "expected"),
    [
        (Retrieval.forward, [(0, 0, 0.9), (1, 1, 0.7), (2, 1, 0.6)]),
        (Retrieval.backward, [(0, 0, 0.9), (1, 1, 0.7), (2, 2, 0.4)]),
        (Retrieval.intersection, [(0, 0, 0.9), (1, 1, 0.7)]),
        (Retrieval.max, [(0, 0, 0.9), (1, 1, 0.7), (2, 2, 0.4)]),
    ],
)
def test_hand_computed(retrieval: Retrieval, expected: list[tuple[int, int, float]]) -> None:
    assert _triples(retrieve(FORWARD, BACKWARD, Margin.absolute, retrieval)) == expected


def _one_by_one(candidates: Candidates) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for pair in zip(candidates.source.tolist(), candidates.target.tolist(), strict=True):
        if all(pair[0] != source and pair[1] != target for source, target in kept):
            kept.append(pair)
    return kept


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=60), st.integers(1, 3))
def test_each_once_in_rounds_is_the_greedy_choice(pairs: list[tuple[int, int, int]], max_rounds: int) -> None:
    pairs = sorted(pairs, key=lambda pair: -pair[2])
    columns = [torch.tensor([pair[column] for pair in pairs], dtype=torch.int64) for column in range(3)]
    candidates = Candidates(columns[0], columns[1], columns[2].float())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(retrieval, "_MAX_ROUNDS", max_rounds)
        found = retrieval._greedy_one_to_one(candidates)
    assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == _one_by_one(candidates)
    assert found.score.tolist() == sorted(found.score.tolist(), reverse=True)


def test_each_once_along_a_chain_longer_than_the_rounds() -> None:
    # x0-y0 > y0-x1 > x1-y1 > ...: only the first pair of what is left is best for both, so every round finds one.
    num_pairs = 2 * retrieval._MAX_ROUNDS + 10
    source, target = (torch.arange(1, 2 * num_pairs + 1) // 2, torch.arange(2 * num_pairs) // 2)
    found = retrieval._greedy_one_to_one(Candidates(source, target, -torch.arange(2 * num_pairs).float()))
    assert found.source.tolist() == found.target.tolist() == list(range(num_pairs))


def test_margin_changes_who_is_best() -> None:
    # x2's nearest is y1, a hub; by ratio y2 is better: 0.4 / ((.4333 + .2333) / 2) = 1.2 > 0.6 / ((.4333 + .6) / 2).
    found = _triples(retrieve(FORWARD, BACKWARD, Margin.ratio, Retrieval.forward))
    assert (2, 2, 1.2) in found
