"""How sure a score is, and whether one system is really better than another on the same items.

Shapes: R bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mlkd.tasks.scoring.item_scores import Floats, ItemScores
from mlkd.tasks.scoring.scores import TaskResult

SEED = 1
NUM_RESAMPLES = 1000
MEAN = "mean"
# The tail of a p-value needs more replicates than the bounds of an interval.
REPLICATES_OF_TESTS = 10
# With fewer than n / 0.05 replicates no p-value could survive Holm's correction for n languages: twice as many.
REPLICATES_OF_EACH_TEST = 40
_BOUNDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired test of one score between two systems over the same items.

    Args:
        task: with `protocol`, `data_sha256`, `language` and `metric`, the row of the table that is compared.
        protocol: of the task.
        data_sha256: of the task's data.
        language: one of the task's, or `mean`.
        metric: the task's main one.
        first: name of a system.
        second: name of the other.
        difference: score of `first` less score of `second`, on the printed scale.
        low: lower bound of the difference's 95 % interval, the 2.5 % percentile of its paired replicates.
        high: upper bound.
        p_value: two-sided, uncorrected: (1 + #{|d* - d| >= |d|}) / (1 + R) for the difference d and its replicates d*.
        p_holm: `p_value` corrected for the number of languages of this task (Holm); for `mean`, a single test, the
            same as `p_value`.

    Source:
        Berg-Kirkpatrick et al. 2012, "An Empirical Investigation of Statistical Significance in NLP", section 2
        (replicates shifted to the null hypothesis); +1 as in Davison & Hinkley 1997, eq. 4.11; Holm 1979.
    """

    task: str
    protocol: str
    data_sha256: str
    language: str
    metric: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float


def interval(items: ItemScores, num_resamples: int) -> list[float] | None:
    """The 95 % bootstrap percentile interval of a score; None where the score or every replicate is undefined."""
    return None if items.value() is None else _percentiles(items.replicates(num_resamples, SEED))


def with_intervals(result: TaskResult, num_resamples: int) -> TaskResult:
    """`result` with the interval of each of its item scores in `details["intervals"]["language/metric"]`."""
    found = {key: interval(items, num_resamples) for key, items in result.item_scores.items()}
    known = {key: bounds for key, bounds in found.items() if bounds is not None}
    return replace(result, details={**result.details, "intervals": known}) if result.item_scores else result


def compare_systems(results: Mapping[str, Sequence[TaskResult]], num_resamples: int) -> list[Comparison]:
    """A paired test for each pair of systems, each task that both were scored on alike, and each language.

    Args:
        results: system -> its task results; those without item scores are passed over.
        num_resamples: of an interval; tests draw ten times as many, and at least 40 for each language. 0 for no tests.
    """
    if not num_resamples:
        return []
    found = []
    for first, second in combinations(results, 2):
        for ours in results[first]:
            for theirs in results[second]:
                if _scored(ours) == _scored(theirs):
                    num = max(REPLICATES_OF_TESTS * num_resamples, REPLICATES_OF_EACH_TEST * _num_tests(ours))
                    tests = [
                        Comparison(*_scored(ours), *_language_and_metric(key), first, second, *test)
                        for key in ours.item_scores
                        if (test := _test(key, ours, theirs, num)) is not None
                    ]
                    found += _corrected(tests)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for testing all of these (Holm 1979): in rising order times n, n-1, ..., 1, and never falling.

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = highest
    return corrected


def _scored(result: TaskResult) -> tuple[str, str, str]:
    return result.task, result.protocol, result.data_sha256


def _num_tests(result: TaskResult) -> int:
    return sum(_language_and_metric(key)[1] == result.main for key in result.item_scores)


def _language_and_metric(key: str) -> tuple[str, str]:
    language, _, metric = key.partition("/")
    return language, metric


def _test(key: str, ours: TaskResult, theirs: TaskResult, num: int) -> tuple[float, float, float, float, float] | None:
    """Difference, its bounds and p-values of one score; None where it is undefined or not the main metric."""
    items, other = ours.item_scores[key], theirs.item_scores.get(key)
    if _language_and_metric(key)[1] != ours.main or other is None or items.count != other.count:
        return None
    value, other_value = items.value(), other.value()
    difference_R = items.replicates(num, SEED) - other.replicates(num, SEED)
    bounds = _percentiles(difference_R)
    if value is None or other_value is None or bounds is None:
        return None
    p_value = _two_sided(value - other_value, difference_R)
    return value - other_value, bounds[0], bounds[1], p_value, p_value


def _corrected(tests: list[Comparison]) -> list[Comparison]:
    """The tests of one task and pair of systems, those of its languages corrected for one another."""
    corrected = iter(holm([test.p_value for test in tests if test.language != MEAN]))
    return [test if test.language == MEAN else replace(test, p_holm=next(corrected)) for test in tests]


def _percentiles(values_R: Floats) -> list[float] | None:
    defined = values_R[~np.isnan(values_R)]
    return [float(bound) for bound in np.percentile(defined, _BOUNDS)] if len(defined) else None


def _two_sided(difference: float, difference_R: Floats) -> float:
    defined = difference_R[~np.isnan(difference_R)]
    # Equal systems differ by nothing in every replicate; rounding must not make a difference of it.
    as_far = np.abs(defined - difference) >= abs(difference) - 1e-9
    return float((1 + as_far.sum()) / (1 + len(defined)))
