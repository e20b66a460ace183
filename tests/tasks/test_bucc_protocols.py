"""Our mining equals a plain Python reading of the protocol, in exact arithmetic, ties and duplicates included.

All vectors have 16 components of +-1/4: their cosines are exact multiples of 1/8 in float32 too, so every comparison
has one right answer and ties are everywhere.
"""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.knn.retrieval import Retrieval
from mlkd.tasks.bucc.protocols import BuccProtocol, MiningSettings, MiningSide, MiningSplit, rank_pairs
from mlkd.tasks.bucc.results import kept_from
from mlkd.tasks.bucc.threshold import fit_threshold

Vector = tuple[int, ...]
NUM_COMPONENTS = 16


class Reference:
    """The protocol, one sentence of its description after the other."""

    def __init__(self, split: MiningSplit, vectors: dict[str, Vector], k: int) -> None:
        self.split, self.vectors, self.k = split, vectors, k

    def ranking(self, margin: str, retrieval: str, protocol: str) -> list[tuple[str, str, Fraction]]:
        x_lines, y_lines = self._lines(self.split.source, protocol), self._lines(self.split.target, protocol)
        x = [self.vectors[text] for _, text in x_lines]
        y = [self.vectors[text] for _, text in y_lines]
        x2y, y2x = self._nearest(x, y), self._nearest(y, x)
        x_mean = [sum(cosine for cosine, _ in row) / Fraction(len(row)) for row in x2y]
        y_mean = [sum(cosine for cosine, _ in row) / Fraction(len(row)) for row in y2x]
        forward = [self._best(row, x_mean[i], y_mean, margin) for i, row in enumerate(x2y)]
        backward = [self._best(row, y_mean[j], x_mean, margin) for j, row in enumerate(y2x)]
        as_forward = [(score, i, j) for i, (score, j) in enumerate(forward)]
        as_backward = [(score, i, j) for j, (score, i) in enumerate(backward)]
        if retrieval == "forward":
            found = as_forward
        elif retrieval == "backward":
            found = as_backward
        elif retrieval == "intersection":
            found = [(score, i, j) for score, i, j in as_forward if backward[j][1] == i]
        else:
            found, used_x, used_y = [], set(), set()
            for score, i, j in sorted(as_forward + as_backward, key=lambda triple: -triple[0]):
                if i not in used_x and j not in used_y:
                    used_x.add(i)
                    used_y.add(j)
                    found.append((score, i, j))
        found = sorted(found, key=lambda triple: -triple[0])
        pairs = [(*x_lines[i], *y_lines[j], score) for score, i, j in found]
        if protocol == "st":
            return [(x_id, y_id, score) for x_id, _, y_id, _, score in pairs if score >= 1]
        x_texts, y_texts = self.split.source.texts, self.split.target.texts
        return [
            (x_id, y_id, score)
            for x_id, x_text, y_id, y_text, score in pairs
            if x_texts.count(x_text) == 1 and y_texts.count(y_text) == 1
        ]

    def best_f1(self, ranking: list[tuple[str, str, Fraction]]) -> tuple[Fraction, Fraction | None]:
        gold, correct = set(self.split.gold), 0
        best, threshold = Fraction(0), None
        for i, (x_id, y_id, score) in enumerate(ranking):
            correct += (x_id, y_id) in gold
            precision, recall = Fraction(correct, i + 1), Fraction(correct, len(gold))
            f1 = 2 * precision * recall / (precision + recall) if correct else Fraction(0)
            if f1 > best:
                best = f1
                threshold = (score + ranking[min(i + 1, len(ranking) - 1)][2]) / 2
        return best, threshold

    def _lines(self, side: MiningSide, protocol: str) -> list[tuple[str, str]]:
        lines = list(zip(side.ids, side.texts, strict=True))
        if protocol == "st":
            return lines
        texts = list(dict.fromkeys(side.texts))
        return [next((line_id, text) for line_id, text in reversed(lines) if text == wanted) for wanted in texts]

    def _nearest(self, x: list[Vector], y: list[Vector]) -> list[list[tuple[Fraction, int]]]:
        cosines = [
            [(Fraction(sum(a * b for a, b in zip(u, v, strict=True)), NUM_COMPONENTS), j) for j, v in enumerate(y)]
            for u in x
        ]
        return [sorted(row, key=lambda pair: (-pair[0], pair[1]))[: self.k] for row in cosines]

    def _best(
        self, row: list[tuple[Fraction, int]], own_mean: Fraction, other_mean: list[Fraction], margin: str
    ) -> tuple[Fraction, int]:
        best: tuple[Fraction, int] | None = None
        for a, j in row:
            b = (own_mean + other_mean[j]) / 2
            ratio = a / b if b else Fraction(0)
            score = {"ratio": ratio, "distance": a - b, "absolute": a}[margin]
            if best is None or score > best[0]:
                best = (score, j)
        assert best is not None
        return best


def _random_case(seed: int, num_texts: int) -> tuple[MiningSplit, dict[str, Vector]]:
    generator = random.Random(seed)
    sides = []
    for name in ("x", "y"):
        # Fewer texts than lines: some lines are equal.
        texts = [f"{name} {generator.randrange(num_texts)}" for _ in range(generator.randint(1, num_texts + 4))]
        sides.append(MiningSide([f"{name}-{line}" for line in range(len(texts))], texts))
    vectors: dict[str, Vector] = {}
    for number in range(num_texts):
        vectors[f"x {number}"] = tuple(generator.choice((-1, 1)) for _ in range(NUM_COMPONENTS))
        # A translation: the same vector with a few signs turned.
        vectors[f"y {number}"] = tuple(c if generator.random() < 0.85 else -c for c in vectors[f"x {number}"])
    source, target = sides
    aligned = [
        (x_id, y_id)
        for x_id, x_text in zip(source.ids, source.texts, strict=True)
        for y_id, y_text in zip(target.ids, target.texts, strict=True)
        if x_text[2:] == y_text[2:]
    ]
    gold = aligned or [(source.ids[0], target.ids[0])]
    return MiningSplit(source, target, generator.sample(gold, max(1, len(gold) * 3 // 4))), vectors


def _rows(texts: list[str], vectors: dict[str, Vector]) -> torch.Tensor:
    return torch.tensor([vectors[text] for text in texts], dtype=torch.float32) / 4


CASES = [
    (margin, retrieval, BuccProtocol.laser) for margin, retrieval in itertools.product(list(Margin), list(Retrieval))
] + [(Margin.ratio, Retrieval.max, BuccProtocol.st)]


@pytest.mark.parametrize(("margin", "retrieval", "protocol"), CASES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.tuples(st.integers(1, 14), st.sampled_from([1, 2, 4])))
def test_equals_the_protocol_read_aloud(
    margin: Margin, retrieval: Retrieval, protocol: BuccProtocol, seed: int, size: tuple[int, int]
) -> None:
    num_texts, k = size
    split, vectors = _random_case(seed, num_texts)
    # A mean over three neighbours is no exact float32, and ties would be broken by rounding.
    distinct = (
        (split.source.texts, split.target.texts)
        if protocol is BuccProtocol.st
        else (set(split.source.texts), set(split.target.texts))
    )
    assume(all(min(k, len(texts)) != 3 for texts in distinct))
    reference = Reference(split, vectors, k)
    expected = reference.ranking(margin.value, retrieval.value, protocol.value)
    chosen = MiningSettings(k, margin, retrieval, protocol, NeighbourSearch(device="cpu"))
    source, target = _rows(split.source.texts, vectors), _rows(split.target.texts, vectors)
    ranking = rank_pairs(split, source, target, chosen)
    assert ranking.pairs == [(x_id, y_id) for x_id, y_id, _ in expected]
    assert ranking.score.tolist() == pytest.approx([float(score) for _, _, score in expected], rel=1e-6, abs=1e-6)
    fit = fit_threshold(ranking.score, ranking.is_correct, ranking.num_gold)
    best, threshold = reference.best_f1(expected)
    assert fit.f1 == pytest.approx(float(best))
    if threshold is not None:
        assert fit.threshold == pytest.approx(float(threshold), rel=1e-6, abs=1e-6)
        kept = sum(score >= threshold for _, _, score in expected)
        applied = kept_from(ranking, fit.threshold)
        correct = sum((x, y) in set(split.gold) for x, y, score in expected if score >= threshold)
        assert (int(applied.sum()), int((applied & ranking.is_correct).sum())) == (kept, correct)
        assert ranking.num_gold == len(set(split.gold))


def test_ambiguous_texts_are_mined_but_not_scored() -> None:
    split = MiningSplit(
        MiningSide(["x1", "x2", "x3"], ["same", "same", "other"]), MiningSide(["y1", "y2"], ["a", "b"]), [("x2", "y1")]
    )
    source, target = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    laser = MiningSettings(2, Margin.ratio, Retrieval.max, BuccProtocol.laser, NeighbourSearch(device="cpu"))
    ranking = rank_pairs(split, source, target, laser)
    # The last of the equal lines gives the vector, takes y1, and is then dropped: only x3 - y2 is left.
    assert ranking.pairs == [("x3", "y2")] and ranking.num_gold == 1
    st_settings = MiningSettings(2, Margin.ratio, Retrieval.max, BuccProtocol.st, NeighbourSearch(device="cpu"))
    assert ("x2", "y1") in rank_pairs(split, source, target, st_settings).pairs
