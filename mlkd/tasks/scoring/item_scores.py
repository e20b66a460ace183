"""Item scores: what a score is computed from, item by item, so that the bootstrap can resample it.

A bootstrap replicate draws as many units (sentences, sentence pairs) as there are, with replacement, and computes the
score again. Which units are drawn depends on the number of replicates, the seed and the number of units alone, so the
replicates of two systems over the same items are paired.

Shapes: N units, R replicates, G blocks of consecutive units that are drawn as one.

Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# More units than this are drawn in blocks: the variance of a sum of independent units stays, the cost is bounded.
MAX_DRAWN = 10_000
_CHUNK_CELLS = 4_000_000


class ItemScores(ABC):
    """The items behind one score, and how the score follows from them.

    Attributes:
        count: resampling units N.
    """

    count: int

    def __init__(self) -> None:
        self._last: tuple[int, int, Floats] | None = None

    @abstractmethod
    def value(self) -> float | None:
        """The score on its printed scale; None where it is undefined."""

    @abstractmethod
    def resample(self, num: int, seed: int) -> Floats:
        """What `replicates` gives, computed."""

    def replicates(self, num: int, seed: int) -> Floats:
        """Bootstrap values of the score, (R,) for R = `num`; NaN where a replicate's score is undefined."""
        # Asked for by the interval, by the mean over languages and by each comparison.
        if self._last is None or self._last[:2] != (num, seed):
            self._last = (num, seed, self.resample(num, seed))
        return self._last[2]


class MeanItemScores(ItemScores):
    """`scale` times the mean of one value a unit: hits (0 or 1) give an accuracy in percent.

    >>> MeanItemScores([1, 0, 1, 1]).value()
    75.0
    """

    def __init__(self, values_N: ArrayLike, scale: float = 100.0) -> None:
        super().__init__()
        self.values_N = _floats(values_N)
        self.scale = scale
        self.count = len(self.values_N)

    def value(self) -> float | None:
        return self.scale * float(self.values_N.sum()) / self.count if self.count else None

    def resample(self, num: int, seed: int) -> Floats:
        if not self.count:
            return np.full(num, np.nan)
        sums_G2 = _block_sums(np.stack([self.values_N, np.ones(self.count)], axis=1))
        drawn_R2 = _draw_sums(sums_G2, num, seed, self.count)
        found_R: Floats = self.scale * drawn_R2[:, 0] / drawn_R2[:, 1]
        return found_R


class F1ItemScores(ItemScores):
    """100 x F1 over units (source sentences) with counts of correct, extracted and gold pairs.

    >>> round(F1ItemScores([1, 0, 1], [1, 1, 1], [1, 1, 1]).value(), 2)
    66.67
    """

    def __init__(self, correct_N: ArrayLike, extracted_N: ArrayLike, gold_N: ArrayLike) -> None:
        super().__init__()
        self.counts_N3 = np.stack([_floats(correct_N), _floats(extracted_N), _floats(gold_N)], axis=1)
        self.count = len(self.counts_N3)

    def value(self) -> float | None:
        correct, extracted, gold = map(float, self.counts_N3.sum(axis=0))
        return 100 * 2 * correct / (extracted + gold) if extracted + gold else None

    def resample(self, num: int, seed: int) -> Floats:
        if not self.count:
            return np.full(num, np.nan)
        drawn_R3 = _draw_sums(_block_sums(self.counts_N3), num, seed, self.count)
        total_R = drawn_R3[:, 1] + drawn_R3[:, 2]
        found_R: Floats = np.divide(200 * drawn_R3[:, 0], total_R, out=np.full(num, np.nan), where=total_R > 0)
        return found_R


class CorrelationItemScores(ItemScores):
    """100 x Spearman (`rank`) or Pearson correlation of a system's similarities with gold scores.

    >>> round(CorrelationItemScores([1.0, 2.0, 4.0], [0.0, 3.0, 5.0], rank=True).value(), 6)
    100.0
    """

    def __init__(self, predicted_N: ArrayLike, gold_N: ArrayLike, rank: bool) -> None:
        super().__init__()
        self.predicted_N, self.gold_N, self.rank = _floats(predicted_N), _floats(gold_N), rank
        assert self.predicted_N.shape == self.gold_N.shape, "one prediction a gold score"
        self.count = len(self.gold_N)

    def value(self) -> float | None:
        from scipy.stats import pearsonr, rankdata

        predicted_N, gold_N = self.predicted_N, self.gold_N
        if self.count < 2 or np.ptp(predicted_N) == 0 or np.ptp(gold_N) == 0:
            return None
        if self.rank:
            predicted_N, gold_N = rankdata(predicted_N), rankdata(gold_N)
        return 100 * float(pearsonr(predicted_N, gold_N).statistic)

    def resample(self, num: int, seed: int) -> Floats:
        found = [np.empty(0)]
        block_N = _blocks(self.count)
        for weights_RG in _draw(num, seed, self.count, width=self.count):
            weights_RN = weights_RG[:, block_N]
            predicted_RN, gold_RN = (
                _weighted_ranks(values_N, weights_RN) if self.rank else np.broadcast_to(values_N, weights_RN.shape)
                for values_N in (self.predicted_N, self.gold_N)
            )
            found.append(100 * _weighted_pearson(predicted_RN, gold_RN, weights_RN))
        return np.concatenate(found)


class MacroAverage(ItemScores):
    """Macro-average: the mean of several scores (languages), each resampled by itself; undefined where one is.

    The replicates of each part are shuffled, which makes the parts independent whatever their draws have in common.

    >>> MacroAverage([MeanItemScores([1, 0]), MeanItemScores([1, 1, 1])]).value()
    75.0
    """

    def __init__(self, parts: Sequence[ItemScores]) -> None:
        super().__init__()
        self.parts = list(parts)
        self.count = sum(part.count for part in self.parts)

    def value(self) -> float | None:
        values = [part.value() for part in self.parts]
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined and len(defined) == len(values) else None

    def resample(self, num: int, seed: int) -> Floats:
        if not self.parts:
            return np.full(num, np.nan)
        total_R = np.zeros(num)
        for position, part in enumerate(self.parts):
            order_R = np.random.default_rng((seed, position, 1)).permutation(num)
            total_R += part.replicates(num, seed)[order_R]
        return total_R / len(self.parts)


def _floats(values_N: ArrayLike) -> Floats:
    result = np.asarray(values_N, dtype=np.float64)
    assert result.ndim == 1, "one value a unit"
    return result


def _blocks(count: int) -> NDArray[np.int64]:
    """The block of each unit, (N,), rising from 0; every unit its own where they are few enough."""
    return np.arange(count) * min(count, MAX_DRAWN) // max(count, 1)


def _block_sums(values_NK: Floats) -> Floats:
    """Sums of each block's units, (G, K)."""
    block_N = _blocks(len(values_NK))
    return np.add.reduceat(values_NK, np.flatnonzero(np.diff(block_N, prepend=-1)), axis=0)


@functools.lru_cache(maxsize=2)
def _drawn_times(num: int, seed: int, num_blocks: int) -> NDArray[np.uint8]:
    """How often each replicate draws each block, (R, G); every row sums to G."""
    generator = np.random.default_rng((seed, num_blocks, 0))
    result = np.empty((num, num_blocks), dtype=np.uint8)
    step = max(1, _CHUNK_CELLS // num_blocks)
    for start in range(0, num, step):
        rows = min(step, num - start)
        drawn = generator.integers(num_blocks, size=(rows, num_blocks)) + np.arange(rows)[:, None] * num_blocks
        times = np.bincount(drawn.ravel(), minlength=rows * num_blocks)
        assert times.max() < 256, "a block is drawn once on average"
        result[start : start + rows] = times.reshape(rows, num_blocks)
    result.setflags(write=False)
    return result


def _draw(num: int, seed: int, count: int, *, width: int) -> Iterator[Floats]:
    """The drawn times of a few replicates after the other, as float64, where each costs `width` cells."""
    if not count:
        yield np.empty((num, 0))
        return
    times_RG = _drawn_times(num, seed, min(count, MAX_DRAWN))
    step = max(1, _CHUNK_CELLS // max(width, 1))
    for start in range(0, num, step):
        yield times_RG[start : start + step].astype(np.float64)


def _draw_sums(sums_GK: Floats, num: int, seed: int, count: int) -> Floats:
    """The sums of what each replicate draws, (R, K)."""
    return np.concatenate([times_RG @ sums_GK for times_RG in _draw(num, seed, count, width=len(sums_GK))])


def _weighted_ranks(values_N: Floats, weights_RN: Floats) -> Floats:
    """Average ranks of the values where unit n occurs `weights[r, n]` times, (R, N); equal values share theirs."""
    _, group_N = np.unique(values_N, return_inverse=True)
    order_N = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order_N], prepend=-1))
    size_RU = np.add.reduceat(weights_RN[:, order_N], starts, axis=1)
    rank_RU = np.cumsum(size_RU, axis=1) - (size_RU - 1) / 2
    ranks_RN: Floats = rank_RU[:, group_N]
    return ranks_RN


def _weighted_pearson(first_RN: Floats, second_RN: Floats, weights_RN: Floats) -> Floats:
    """Correlation of each replicate, (R,); NaN where one side is constant among the drawn units."""
    num = len(weights_RN)
    first_RN, second_RN = _centred(first_RN, weights_RN), _centred(second_RN, weights_RN)
    covariance_R = (weights_RN * first_RN * second_RN).sum(axis=1)
    scale_R = np.sqrt((weights_RN * first_RN**2).sum(axis=1) * (weights_RN * second_RN**2).sum(axis=1))
    found_R: Floats = np.divide(covariance_R, scale_R, out=np.full(num, np.nan), where=scale_R > 0)
    return found_R


def _centred(values_RN: Floats, weights_RN: Floats) -> Floats:
    """Values less their mean over the drawn units, (R, N); exactly 0 where those units are all equal."""
    drawn_RN = np.where(weights_RN > 0, values_RN, np.nan)
    low_R1 = np.fmin.reduce(drawn_RN, axis=1, keepdims=True)
    # From the lowest drawn value: equal values then differ by nothing, whatever a sum would round to.
    above_RN = np.where(weights_RN > 0, values_RN - low_R1, 0.0)
    mean_R1 = (weights_RN * above_RN).sum(axis=1, keepdims=True) / weights_RN.sum(axis=1, keepdims=True)
    centred_RN: Floats = above_RN - mean_R1
    return centred_RN
