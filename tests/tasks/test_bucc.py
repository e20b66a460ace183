"""BUCC from files: fitted and oracle thresholds, what the report draws, faulty ids."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.errors import MlkdError
from mlkd.knn.margins import Margin
from mlkd.knn.retrieval import Retrieval
from mlkd.tasks.bucc.protocols import BuccProtocol, MiningSide, MiningSplit, Ranking
from mlkd.tasks.bucc.results import f1_item_scores, kept_by_rank, kept_from
from mlkd.tasks.bucc.task import BuccSet, BuccTask
from mlkd.tasks.bucc.threshold import fit_threshold

Write = Callable[..., str]


def _write_split(write: Write, split: str, num_gold: int) -> str:
    """Sentences 0..num_gold-1 on both sides; as many others on each side alone."""
    german = [[f"de-{n}", f"{split} de {n}"] for n in range(2 * num_gold)]
    english = [[f"en-{n}", f"{split} en {n if n < num_gold else n + num_gold}"] for n in range(2 * num_gold)]
    write(f"{split}.de", *german)
    write(f"{split}.en", *english)
    path = write(f"{split}.gold", *[[f"de-{n}", f"en-{n}"] for n in range(num_gold)])
    return path.removesuffix("gold") + "{side}"


@pytest.fixture
def encoder(hash_encoder: Any) -> Any:
    return hash_encoder(num_dimensions=16, key=lambda text: text.split()[-1], noise=0.45)


def test_oracle_and_fitted_thresholds(write: Write, encoder: Any) -> None:
    path, train_path = _write_split(write, "test", 30), _write_split(write, "train", 20)
    oracle = BuccTask(path=path, pairs=["de-en"])
    fitted = BuccTask(path=path, train_path=train_path, pairs=["de-en"])
    oracle_result = oracle.score(oracle.load(), encoder)
    fitted_result = fitted.score(fitted.load(), encoder)
    assert oracle_result.protocol == "oracle, laser, k=4, ratio, max"
    assert fitted_result.protocol == "fitted, laser, k=4, ratio, max"
    ours, theirs = fitted_result.as_metrics(), oracle_result.as_metrics()
    assert ours["bucc/de-en/oracle_f1"] == theirs["bucc/de-en/f1"]
    assert 0 < ours["bucc/de-en/f1"] <= theirs["bucc/de-en/f1"] < 100
    precision, recall = ours["bucc/de-en/precision"], ours["bucc/de-en/recall"]
    assert ours["bucc/de-en/f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert ours["bucc/mean/f1"] == ours["bucc/de-en/f1"]
    # The fitted threshold is the train split's own.
    train = BuccTask(path=train_path, pairs=["de-en"])
    train_threshold = train.score(train.load(), encoder).details["mining"]["de-en"]["threshold"]
    assert fitted_result.details["mining"]["de-en"]["threshold"] == train_threshold
    # Both splits are encoded.
    assert [text.split()[0] for text in fitted.texts(fitted.load())] == ["test"] * 120 + ["train"] * 80
    assert fitted_result.data_sha256 != oracle_result.data_sha256


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_lines_changes_nothing(seed: int, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue("encoder")
    task = BuccTask(path=_write_split(request.getfixturevalue("write"), "test", 20), pairs=["de-en"])
    (pairs,) = task.load()
    before = repr(pairs)
    sides = []
    for side in (pairs.test.source, pairs.test.target):
        order = random.Random(seed).sample(range(len(side.ids)), len(side.ids))
        sides.append(MiningSide([side.ids[line] for line in order], [side.texts[line] for line in order]))
    permuted = BuccSet("de-en", MiningSplit(sides[0], sides[1], pairs.test.gold[::-1]), None)
    expected = task.score([pairs], encoder).as_metrics()
    assert task.score([permuted], encoder).as_metrics() == pytest.approx(expected)
    assert repr(pairs) == before


def test_histograms_count_every_scored_pair(write: Write, encoder: Any) -> None:
    task = BuccTask(path=_write_split(write, "test", 30), pairs=["de-en"])
    mining = task.score(task.load(), encoder).details["mining"]["de-en"]
    assert len(mining["edges"]) == len(mining["true"]) + 1 == len(mining["false"]) + 1
    assert 0 < sum(mining["true"]) <= 30
    assert sum(mining["true"]) + sum(mining["false"]) <= 60
    assert mining["edges"][0] < mining["threshold"] < mining["edges"][-1]


def test_perfect_encoder_finds_all(write: Write, hash_encoder: Any) -> None:
    path = _write_split(write, "test", 30)
    perfect = hash_encoder(num_dimensions=64, key=lambda text: text.split()[-1])
    for protocol in BuccProtocol:
        task = BuccTask(path=path, pairs=["de-en"], protocol=protocol)
        assert task.score(task.load(), perfect).as_metrics()["bucc/mean/f1"] == 100


@pytest.mark.parametrize("retrieval", list(Retrieval))
@pytest.mark.parametrize("margin", list(Margin))
def test_every_mode_runs(write: Write, encoder: Any, retrieval: Retrieval, margin: Margin) -> None:
    task = BuccTask(path=_write_split(write, "test", 10), pairs=["de-en"], retrieval=retrieval, margin=margin)
    assert 0 < task.score(task.load(), encoder).as_metrics()["bucc/de-en/f1"] <= 100


def test_nothing_found_is_zero_and_json_has_no_infinity(write: Write, hash_encoder: Any) -> None:
    write("t.de", ["a", "x"], ["b", "same"], ["c", "same"])
    write("t.en", ["A", "y"])
    path = write("t.gold", ["b", "A"]).removesuffix("gold") + "{side}"
    task = BuccTask(path=path, pairs=["de-en"])
    result = task.score(task.load(), hash_encoder())
    assert result.as_metrics()["bucc/de-en/f1"] == 0
    assert result.details["mining"]["de-en"]["threshold"] is None


def test_compressed_files_and_pair_placeholder(tmp_path: Path) -> None:
    for side, text in {"de": "1\tein Satz\t mit Tab\n", "en": "2\ta sentence\n", "gold": "1\t2\r\n"}.items():
        with gzip.open(tmp_path / f"de-en.{side}.gz", "wb") as file:
            file.write(text.encode())
    (pairs,) = BuccTask(path=str(tmp_path / "{pair}.{side}.gz"), pairs=["de-en"]).load()
    assert pairs.test.source.texts == ["ein Satz\t mit Tab"] and pairs.test.gold == [("1", "2")]


def test_unknown_and_repeated_ids(write: Write) -> None:
    write("t.de", ["1", "x"])
    write("t.en", ["2", "y"])
    path = write("t.gold", ["1", "2"], ["9", "8"])
    template = path.removesuffix("gold") + "{side}"
    with pytest.raises(MlkdError) as caught:
        BuccTask(path=template, pairs=["de-en"]).load()
    assert [problem.code for problem in caught.value.problems] == ["E316", "E316"]
    assert f"error[E316]: {path}:2: gold id '9' not in the corpus" in str(caught.value)
    write("t.de", ["1", "x"], ["1", "z"])
    with pytest.raises(MlkdError, match=r"E316.*t\.de:2.*id '1' occurs a second time"):
        BuccTask(path=template, pairs=["de-en"]).load()


def test_scores_are_their_item_scores_and_the_oracle_is_printed_beside(write: Write, encoder: Any) -> None:
    path, train_path = _write_split(write, "test", 30), _write_split(write, "train", 20)
    task = BuccTask(path=path, train_path=train_path, pairs=["de-en"])
    result = task.score(task.load(), encoder)
    metrics = [score.metric for score in result.scores if score.language == "de-en"]
    assert metrics == ["f1", "precision", "recall", "oracle_f1", "oracle_precision", "oracle_recall"]
    for score in result.scores:
        items = result.item_scores[f"{score.language}/{score.metric}"]
        assert score.value == items.value() and score.count == 30
        assert items.count == 60, "one unit a source sentence"
        low, high = np.percentile(items.replicates(200, 1), [2.5, 97.5])
        assert low < score.value < high
    details = result.details["mining"]["de-en"]
    assert details["oracle_threshold"] != details["threshold"]


def test_the_table_holds_every_ranked_pair(write: Write, encoder: Any) -> None:
    task = BuccTask(path=_write_split(write, "test", 30), pairs=["de-en"])
    result = task.score(task.load(), encoder)
    header, *rows = result.tables["de-en"]
    assert header == ("score", "source_id", "target_id", "source", "target", "is_gold", "is_kept")
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(rows) > 30
    for score, source, target, source_text, target_text, is_gold, is_kept in rows:
        assert source_text == f"test de {source[3:]}" and target_text.startswith("test en ")
        assert is_gold == str(int(source[3:] == target[3:] and int(source[3:]) < 30))
        assert is_kept == str(int(float(score) >= result.details["mining"]["de-en"]["threshold"]))
    # The F1 that is printed can be counted from the table.
    kept = [row for row in rows if row[6] == "1"]
    correct = sum(row[5] == "1" for row in kept)
    assert result.as_metrics()["bucc/de-en/f1"] == pytest.approx(200 * correct / (len(kept) + 30))


def test_st_keeps_a_part_of_equal_scores() -> None:
    # The best cut is after the first pair; from its score on, the wrong second pair would be in too.
    ranking = Ranking([("a", "b"), ("c", "d")], torch.tensor([2.0, 2.0]), torch.tensor([True, False]), 1)
    fit = fit_threshold(ranking.score, ranking.is_correct, ranking.num_gold)
    assert fit.f1 == 1.0
    assert kept_by_rank(ranking, fit).tolist() == [True, False]
    assert kept_from(ranking, fit.threshold).tolist() == [True, True]
    nothing = Ranking(ranking.pairs, ranking.score, torch.tensor([False, False]), 1)
    fit = fit_threshold(nothing.score, nothing.is_correct, 1)
    assert not kept_by_rank(nothing, fit).any() and not kept_from(nothing, fit.threshold).any()


def test_backward_may_take_a_source_twice() -> None:
    split = MiningSplit(MiningSide(["a"], ["x"]), MiningSide(["b", "c"], ["y", "z"]), [("a", "b")])
    ranking = Ranking([("a", "b"), ("a", "c")], torch.tensor([2.0, 1.0]), torch.tensor([True, False]), 1)
    item_scores = f1_item_scores(split, ranking, torch.tensor([True, True]))
    assert {metric: items.value() for metric, items in item_scores.items()} == {
        "f1": pytest.approx(200 / 3),
        "precision": 50.0,
        "recall": 100.0,
    }


def test_missing_files_and_lines_without_tab_come_together(write: Write) -> None:
    path = write("t.de", ["no tab here"])
    with pytest.raises(MlkdError) as caught:
        BuccTask(path=path.removesuffix("de") + "{side}", pairs=["de-en"]).load()
    assert [problem.code for problem in caught.value.problems] == ["E307", "E301", "E301"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_neighbours": 0}, r"E204.*num_neighbours.*>= 1 \(got 0\)"),
        ({"protocol": BuccProtocol.st, "margin": Margin.distance}, r"E209.*protocol=st"),
        ({"pairs": ["de"]}, r"E207.*no pair of two languages"),
        ({"train_path": "x"}, r"E209.*train_path"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        BuccTask(**fields)


def test_template_without_side() -> None:
    with pytest.raises(MlkdError, match=r"E204.*must hold the placeholder \{side\}"):
        BuccTask(path="x.de").load()


def test_embedded_sets_load_and_score(hash_encoder: Any) -> None:
    task = BuccTask()
    sets = task.load()
    assert [pairs.pair for pairs in sets] == ["de-en", "es-en", "ru-en", "zh-en"]
    for pairs in sets:
        assert {source for source, _ in pairs.test.gold} <= set(pairs.test.source.ids)
        assert {target for _, target in pairs.test.gold} <= set(pairs.test.target.ids)
        assert len(pairs.test.gold) < len(pairs.test.source.ids)
    assert task.score(sets, hash_encoder()).as_metrics()["bucc/mean/f1"] < 20
    with pytest.raises(MlkdError, match=r"E207.*the embedded set has no 'fr', only en, de, es, ru, zh"):
        BuccTask(pairs=["de-fr"]).load()
