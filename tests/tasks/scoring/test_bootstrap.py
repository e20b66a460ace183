"""Intervals and paired tests: coverage, the p-value's formula, Holm's correction, what is compared at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlkd.tasks.scoring.bootstrap import SEED, compare_systems, holm, interval, with_intervals
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, ItemScores, MeanItemScores, _drawn_times
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import Score, TaskResult, scores_from_items


def accuracy(hits: dict[str, np.ndarray], protocol: str = "laser") -> TaskResult:
    item_scores = with_means({f"{language}/accuracy": MeanItemScores(found) for language, found in hits.items()})
    return TaskResult(
        "tatoeba", protocol, "accuracy", True, "ab" * 32, scores_from_items(item_scores), item_scores=item_scores
    )


def random_hits(share: float, seed: int, count: int = 400) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < share).astype(float)


def test_an_interval_is_the_percentiles_of_the_replicates() -> None:
    items = MeanItemScores(random_hits(0.6, 1))
    found = interval(items, 500)
    assert found == [float(b) for b in np.percentile(items.replicates(500, SEED), [2.5, 97.5])]
    assert interval(CorrelationItemScores([1.0, 1.0], [0.0, 1.0], rank=True), 500) is None


def test_95_percent_of_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(300):
        found = interval(MeanItemScores(random_hits(0.7, seed)), 400)
        assert found is not None
        held += found[0] <= 70 <= found[1]
    # Four standard errors of a share of 300, and the percentile interval's own shortfall at 400 items.
    assert 0.90 <= held / 300 <= 0.99


def test_details_keep_what_they_had() -> None:
    result = replace(accuracy({"de": random_hits(0.5, 1)}), details={"num_empty": 3})
    found = with_intervals(result, 200)
    assert found.details["num_empty"] == 3
    assert set(found.details["intervals"]) == {"de/accuracy", "mean/accuracy"}
    assert result.details == {"num_empty": 3}
    bare = TaskResult("t", "p", "m", True, "0", [Score("mean", "m", 1.0, 1)], {"x": 1})
    assert with_intervals(bare, 200) == bare


def test_a_paired_test_by_its_formula() -> None:
    ours, theirs = random_hits(0.6, 1), random_hits(0.55, 2)
    tests = compare_systems({"a": [accuracy({"de": ours})], "b": [accuracy({"de": theirs})]}, 100)
    assert [(t.language, t.metric, t.first, t.second) for t in tests] == [
        ("de", "accuracy", "a", "b"),
        ("mean", "accuracy", "a", "b"),
    ]
    (test, _) = tests
    # An independent computation: the difference of the drawn items of both, a thousand times.
    replicates = np.array(
        [100 * (ours - theirs)[np.repeat(np.arange(400), t)].mean() for t in _drawn_times(1000, SEED, 400)]
    )
    difference = 100 * (ours - theirs).mean()
    assert test.difference == pytest.approx(difference)
    assert (test.low, test.high) == pytest.approx(tuple(np.percentile(replicates, [2.5, 97.5])))
    as_far = np.sum(np.abs(replicates - difference) >= abs(difference) - 1e-9)
    assert test.p_value == pytest.approx((1 + as_far) / 1001)


def test_few_resamples_do_not_hide_what_many_languages_show() -> None:
    good = accuracy({f"l{i}": random_hits(0.9, i) for i in range(112)})
    bad = accuracy({f"l{i}": random_hits(0.1, 200 + i) for i in range(112)})
    tests = compare_systems({"good": [good], "bad": [bad]}, 10)
    assert len(tests) == 113
    assert max(test.p_holm for test in tests) < 0.05


def test_pairing_finds_what_two_intervals_do_not() -> None:
    hits = random_hits(0.5, 1)
    better = hits.copy()
    better[np.flatnonzero(hits == 0)[:12]] = 1.0  # 12 more of the very same items
    ours, theirs = accuracy({"de": better}), accuracy({"de": hits})
    (low, _), (_, high) = (
        interval(ours.item_scores["de/accuracy"], 1000),
        interval(theirs.item_scores["de/accuracy"], 1000),
    )  # type: ignore[misc]
    assert low < high
    test = compare_systems({"a": [ours], "b": [theirs]}, 500)[0]
    assert test.difference == pytest.approx(3.0)
    assert test.low > 0 and test.p_value < 0.01


def test_a_system_does_not_differ_from_itself() -> None:
    hits = {"de": random_hits(0.5, 1), "fr": random_hits(0.7, 2)}
    for test in compare_systems({"a": [accuracy(hits)], "b": [accuracy(hits)]}, 100):
        assert (test.difference, test.low, test.high, test.p_value, test.p_holm) == (0, 0, 0, 1, 1)


def test_equal_systems_are_called_different_in_one_of_twenty_tests() -> None:
    hits = {str(i): random_hits(0.7, i, 200) for i in range(120)}
    others = {str(i): random_hits(0.7, 1000 + i, 200) for i in range(120)}
    tests = [t for t in compare_systems({"a": [accuracy(hits)], "b": [accuracy(others)]}, 100) if t.language != "mean"]
    assert len(tests) == 120
    assert sum(t.p_value < 0.05 for t in tests) <= 15  # 6 expected, the 99.9 % bound of a binomial is 14
    assert sum(t.p_holm < 0.05 for t in tests) <= 1


def test_holm() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.6, 0.01, 0.5]) == [1.0, 0.03, 1.0]
    tests = compare_systems(
        {"a": [accuracy({"de": random_hits(0.6, 1), "fr": random_hits(0.6, 2)})],
         "b": [accuracy({"de": random_hits(0.5, 3), "fr": random_hits(0.58, 4)})]},
        100,
    )  # fmt: skip
    german, french, mean = tests
    assert german.p_value < french.p_value
    assert german.p_holm == pytest.approx(min(1, 2 * german.p_value))
    assert french.p_holm == pytest.approx(max(french.p_value, german.p_holm))
    assert mean.p_holm == mean.p_value


def test_only_what_was_scored_alike_is_compared() -> None:
    ours = accuracy({"de": random_hits(0.5, 1)})
    other_protocol = accuracy({"de": random_hits(0.5, 2)}, protocol="xtreme")
    other_data = replace(ours, data_sha256="cd" * 32)
    secondary: dict[str, ItemScores] = {"de/recall": MeanItemScores(random_hits(0.5, 1))}
    no_main = replace(ours, item_scores=secondary)
    without = replace(ours, item_scores={})
    for other in (other_protocol, other_data, no_main, without):
        assert compare_systems({"a": [ours], "b": [other]}, 100) == []
    assert len(compare_systems({"a": [ours], "b": [ours], "c": [ours]}, 100)) == 6
    assert compare_systems({"a": [ours], "b": [ours]}, 0) == []
