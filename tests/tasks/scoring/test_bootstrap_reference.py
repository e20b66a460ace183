"""Reference: percentile intervals are those of scipy.stats.bootstrap, for each kind of item scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, pearsonr, spearmanr

from mlkd.tasks.scoring.bootstrap import interval
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, F1ItemScores, ItemScores, MacroAverage, MeanItemScores

Floats = NDArray[np.float64]
NUM_RESAMPLES = 10_000
# In standard errors of the score. Two independent runs differ by their Monte Carlo error: a bound's is
# sqrt(p (1 - p) / R) / density = 0.0016 / 0.058 = 0.027, that of a difference 0.038, and this is four times that.
# The bounds of a 90 % interval would be 0.31 off.
TOLERANCE = 0.15


def _f1(correct: Floats, extracted: Floats, gold: Floats) -> float:
    return float(200 * correct.sum() / (extracted.sum() + gold.sum()))


def _cases() -> dict[str, tuple[ItemScores, tuple[Floats, ...], Callable[..., float]]]:
    rng = np.random.default_rng(7)
    hits = (rng.random(250) < 0.7).astype(np.float64)
    skewed = rng.exponential(size=250)
    extracted, gold = rng.integers(0, 3, 250).astype(np.float64), rng.integers(0, 2, 250).astype(np.float64)
    correct = np.minimum(extracted, gold) * (rng.random(250) < 0.8)
    wanted = np.round(rng.uniform(0, 5, 250), 1)
    cosine = wanted / 5 + rng.normal(0, 0.4, 250)
    return {
        "accuracy": (MeanItemScores(hits), (hits,), lambda x: float(100 * x.mean())),
        "skewed mean": (MeanItemScores(skewed, scale=1.0), (skewed,), lambda x: float(x.mean())),
        "f1": (F1ItemScores(correct, extracted, gold), (correct, extracted, gold), _f1),
        "spearman": (
            CorrelationItemScores(cosine, wanted, rank=True),
            (cosine, wanted),
            lambda x, y: float(100 * spearmanr(x, y).statistic),
        ),
        "pearson": (
            CorrelationItemScores(cosine, wanted, rank=False),
            (cosine, wanted),
            lambda x, y: float(100 * pearsonr(x, y).statistic),
        ),
    }


@pytest.mark.parametrize("name", ["accuracy", "skewed mean", "f1", "spearman", "pearson"])
def test_percentile_intervals_are_scipy_s(name: str) -> None:
    items, columns, statistic = _cases()[name]
    assert items.value() == pytest.approx(statistic(*columns))
    expected = bootstrap(
        columns,
        statistic,
        paired=len(columns) > 1,
        vectorized=False,
        n_resamples=NUM_RESAMPLES,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    found = interval(items, NUM_RESAMPLES)
    assert found is not None
    tolerance = TOLERANCE * expected.standard_error
    np.testing.assert_allclose(found, expected.confidence_interval, rtol=0, atol=tolerance)
    # A standard deviation of R replicates has the relative error 1 / sqrt(2 R); of two runs, 1 / sqrt(R). Four of it.
    spread = items.replicates(NUM_RESAMPLES, 1).std(ddof=1)
    assert spread == pytest.approx(expected.standard_error, rel=4 / np.sqrt(NUM_RESAMPLES))


def test_a_macro_average_resamples_its_languages_independently() -> None:
    """Stratified bootstrap: scipy resamples two samples that are not paired independently."""
    rng = np.random.default_rng(3)
    german, french = (rng.random(150) < 0.6).astype(np.float64), (rng.random(90) < 0.4).astype(np.float64)
    expected = bootstrap(
        (german, french),
        lambda x, y: 50 * (x.mean() + y.mean()),
        vectorized=False,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    found = interval(MacroAverage([MeanItemScores(german), MeanItemScores(french)]), NUM_RESAMPLES)
    assert found is not None
    np.testing.assert_allclose(
        found, expected.confidence_interval, rtol=0, atol=TOLERANCE * float(expected.standard_error)
    )
