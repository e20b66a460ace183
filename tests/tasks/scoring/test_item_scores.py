"""Item scores: scores against hand values, replicates against scipy on the drawn items, pairing and independence."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from mlkd.tasks.scoring import item_scores
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, F1ItemScores, ItemScores, MacroAverage, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import scores_from_items


def drawn_items(num: int, seed: int, count: int) -> list[np.ndarray]:
    """The items of each replicate, repeated as often as they were drawn."""
    return [np.repeat(np.arange(count), times) for times in item_scores._drawn_times(num, seed, count)]


def test_values_by_hand() -> None:
    assert MeanItemScores([0.25, 0.75, 0.5]).value() == 50.0
    assert MeanItemScores([1.0, 4.0], scale=2.0).value() == 5.0
    # 3 correct of 4 extracted and 5 gold: 2 * 3 / 9.
    assert F1ItemScores([1, 2, 0], [1, 2, 1], [2, 2, 1]).value() == pytest.approx(200 / 3)
    # Ranks 1 2 3 against 1 3 2: 1 - 6 * 2 / (3 * 8).
    assert CorrelationItemScores([1.0, 2.0, 9.0], [0.0, 5.0, 1.0], rank=True).value() == pytest.approx(50.0)
    assert MacroAverage([MeanItemScores([1, 0]), MeanItemScores([1, 1, 1])]).value() == 75.0


def test_what_is_undefined() -> None:
    constant = CorrelationItemScores([1.0, 1.0, 1.0], [0.0, 1.0, 2.0], rank=True)
    nothing = F1ItemScores([0, 0], [0, 0], [0, 0])
    for items in (
        constant,
        nothing,
        MacroAverage([MeanItemScores([1.0]), constant]),
        MeanItemScores([]),
        MacroAverage([]),
    ):
        assert items.value() is None
        assert np.isnan(items.replicates(5, 1)).all()
    # Two distinct items: a replicate that draws one of them twice has no correlation, the others have a perfect one.
    found = CorrelationItemScores([1.0, 2.0], [3.0, 9.0], rank=False).replicates(200, 1)
    assert set(found[~np.isnan(found)].round(9)) == {100.0}
    assert 0.3 < np.isnan(found).mean() < 0.7


@pytest.mark.parametrize("rank", [True, False])
def test_a_correlation_is_computed_anew_in_each_replicate(rank: bool) -> None:
    rng = np.random.default_rng(0)
    predicted, gold = rng.normal(size=60).round(1), rng.integers(0, 11, 60) / 2
    found = CorrelationItemScores(predicted, gold, rank).replicates(40, 7)
    reference = spearmanr if rank else pearsonr
    expected = [100 * reference(predicted[i], gold[i]).statistic for i in drawn_items(40, 7, 60)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_equal_values_whose_mean_rounds_are_constant_still() -> None:
    value = 0.1 + 0.2
    found = CorrelationItemScores([value] * 3 + [1.0], [1.0, 2.0, 3.0, 4.0], rank=False).replicates(300, 3)
    alone = np.array([3 not in items for items in drawn_items(300, 3, 4)])
    assert alone.any() and np.isnan(found[alone]).all()


def test_means_and_f1_of_the_drawn_items() -> None:
    rng = np.random.default_rng(1)
    values, (correct, extracted, gold) = rng.random(30), rng.integers(0, 3, (3, 30))
    items = drawn_items(20, 2, 30)
    means = MeanItemScores(values, scale=10.0).replicates(20, 2)
    np.testing.assert_allclose(means, [10 * values[i].mean() for i in items])
    f1 = F1ItemScores(correct, extracted, gold).replicates(20, 2)
    np.testing.assert_allclose(f1, [200 * correct[i].sum() / (extracted[i].sum() + gold[i].sum()) for i in items])


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says() -> None:
    hits = np.repeat([1.0, 0.0], [700, 300])
    assert MeanItemScores(hits).replicates(4000, 1).std() == pytest.approx(100 * np.sqrt(0.7 * 0.3 / 1000), rel=0.05)


def test_draws_depend_on_number_seed_and_count_alone() -> None:
    first, second = MeanItemScores(np.arange(50)), F1ItemScores(np.arange(50), np.ones(50), np.ones(50))
    # F1 here is the sum of the same drawn numbers, on another scale: 2 * sum / 100.
    np.testing.assert_allclose(second.replicates(30, 4), first.replicates(30, 4))
    assert not np.allclose(MeanItemScores(np.arange(50)).replicates(30, 5), first.replicates(30, 4))
    assert (item_scores._drawn_times(10, 1, 50).sum(axis=1) == 50).all()


def test_languages_are_resampled_independently() -> None:
    values = np.random.default_rng(2).random(400)
    # Were the same items drawn in all languages, the mean would vary as much as each of them.
    parts = [MeanItemScores(values) for _ in range(16)]
    alone, together = parts[0].replicates(2000, 1).std(), MacroAverage(parts).replicates(2000, 1).std()
    assert together == pytest.approx(alone / 4, rel=0.1)


def test_very_many_units_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(1000)
    exact = MeanItemScores(values).replicates(3000, 1)
    monkeypatch.setattr(item_scores, "MAX_DRAWN", 300)
    blocks = item_scores._blocks(1000)
    assert blocks[0] == 0 and blocks[-1] == 299 and set(np.bincount(blocks)) == {3, 4}
    blocked = MeanItemScores(values).replicates(3000, 1)
    assert blocked.mean() == pytest.approx(exact.mean(), rel=0.01)
    assert blocked.std() == pytest.approx(exact.std(), rel=0.12)
    monkeypatch.setattr(item_scores, "_CHUNK_CELLS", 700)
    np.testing.assert_allclose(MeanItemScores(values).replicates(50, 1), blocked[:50])


def test_means_and_scores_by_key() -> None:
    found: dict[str, ItemScores] = {
        "de/xx->en": MeanItemScores([1, 0]),
        "de/accuracy": MeanItemScores([1, 1]),
        "fr/accuracy": MeanItemScores([0, 0, 1, 0]),
    }
    scores = scores_from_items(with_means(found))
    assert [(s.language, s.metric, s.value, s.count) for s in scores] == [
        ("de", "xx->en", 50.0, 2), ("de", "accuracy", 100.0, 2), ("fr", "accuracy", 25.0, 4),
        ("mean", "xx->en", 50.0, 2), ("mean", "accuracy", 62.5, 6),
    ]  # fmt: skip


def test_all_languages_of_tatoeba_take_seconds() -> None:
    rng = np.random.default_rng(0)
    found = with_means({f"{i}/accuracy": MeanItemScores(rng.random(1000) < 0.7) for i in range(112)})
    start = time.process_time()
    for items in found.values():
        items.replicates(1000, 1)
    assert time.process_time() - start < 10
