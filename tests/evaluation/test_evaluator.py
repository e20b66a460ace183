"""Tasks scored together: shared texts once, the metric that chooses, results as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mlkd.errors import MlkdError, fail
from mlkd.evaluation.evaluator import (
    BestMetric,
    CachedEncoder,
    Evaluator,
    as_metrics,
    read_task_results,
    write_task_results,
)
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import Task
from mlkd.tasks.scoring.item_scores import MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import Score, TaskResult, scores_from_items


class CountingEncoder:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked.append(list(texts))
        return torch.tensor([[float(len(t)), float(sum(map(ord, t)))] for t in texts]).view(-1, 2)


@dataclass(kw_only=True, slots=True)
class LengthTask(Task):
    """The sum of all text lengths."""

    sentences: list[str] = field(default_factory=list)
    broken: str = ""

    def load(self) -> Any:
        if self.broken:
            raise fail("E301", self.broken)
        return self.sentences

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        value = float(encoder.encode(data)[:, 0].sum())
        return TaskResult(self.name, "sum", "length", True, "0", [Score("mean", "length", value, len(data))])

    def texts(self, data: Any) -> Iterable[str]:
        return data


@dataclass(kw_only=True, slots=True)
class TeacherTask(LengthTask):
    @property
    def needs_teacher(self) -> bool:
        return True


def result(task: str, *scores: Score, main: str = "accuracy", higher: bool = True) -> TaskResult:
    return TaskResult(task, "p", main, higher, "ab", list(scores), {"thresholds": [1.5], "name": "ü"})


RESULTS = [
    result("tatoeba", Score("de", "accuracy", 60.0, 9), Score("mean", "accuracy", 61.0, 18), Score("de", "f1", 5.0, 9)),
    result("mse", Score("de", "mse", 0.5, 9), Score("mean", "mse", None, 9), main="mse", higher=False),
]


def test_the_teacher_is_part_of_the_protocol_of_tasks_that_use_one() -> None:
    loaded: list[tuple[Task, Any]] = [(LengthTask(name="a"), ["x"]), (TeacherTask(name="b"), ["x"])]
    encoder = CountingEncoder()
    found = Evaluator(loaded, teacher="0123456789ab").score(encoder, encoder)
    assert [r.protocol for r in found] == ["sum", "sum; teacher 0123456789ab"]
    assert [r.protocol for r in Evaluator(loaded).score(encoder, encoder)] == ["sum", "sum"]


def test_each_text_is_encoded_once() -> None:
    encoder = CountingEncoder()
    cached = CachedEncoder(encoder)
    first = cached.encode(["b", "a", "b"])
    second = cached.encode(["c", "a"])
    assert encoder.asked == [["b", "a"], ["c"]]
    assert torch.equal(first, CountingEncoder().encode(["b", "a", "b"]))
    assert torch.equal(second, CountingEncoder().encode(["c", "a"]))
    cached.encode(["a"])
    assert len(encoder.asked) == 2
    assert cached.encode([]).shape == (0, 2)


def test_the_matrix_of_vectors_grows_and_keeps_its_rows() -> None:
    cached, texts = CachedEncoder(CountingEncoder()), [f"{'x' * i}{i}" for i in range(300)]
    for start in range(0, 300, 7):
        cached.encode(texts[max(0, start - 3) : start + 7])
    assert torch.equal(cached.encode(texts), CountingEncoder().encode(texts))
    assert sum(map(len, cached.encoder.asked)) == 300  # type: ignore[attr-defined]


@dataclass(kw_only=True, slots=True)
class UncachedTask(LengthTask):
    needs_uncached: ClassVar[bool] = True


def test_a_task_may_ask_for_the_encoder_itself() -> None:
    tasks = [LengthTask(name="one", sentences=["a", "bb"]), UncachedTask(name="two", sentences=["a", "bb"])]
    encoder = CountingEncoder()
    Evaluator.load(tasks).score(encoder)
    assert encoder.asked == [["a", "bb"], ["a", "bb"]]


@dataclass(kw_only=True, slots=True)
class ItemTask(LengthTask):
    """The share of texts longer than one letter, with its item scores and a table."""

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        item_scores = with_means({"de/long": MeanItemScores((encoder.encode(data)[:, 0] > 1).numpy())})
        scores = scores_from_items(item_scores)
        tables = {"texts": [(text,) for text in data]}
        return TaskResult(
            self.name, "share", "long", True, "0", scores, {"a": 1}, item_scores=item_scores, tables=tables
        )


def test_intervals_cost_nothing_unless_asked_for() -> None:
    evaluator = Evaluator.load([ItemTask(name="s", sentences=["a", "bb", "ccc", "d"])])
    (plain,) = evaluator.score(CountingEncoder())
    assert plain.details == {"a": 1}
    (known,) = evaluator.score(CountingEncoder(), num_resamples=200)
    assert known.details["a"] == 1
    low, high = known.details["intervals"]["mean/long"]
    assert 0 <= low < 50 < high <= 100
    assert known.scores == plain.scores


def test_progress_is_told_each_result_before_the_next_task() -> None:
    tasks = [ItemTask(name="one", sentences=["a", "bb"]), TeacherTask(name="two"), LengthTask(name="three")]
    encoder = CountingEncoder()
    told: list[tuple[TaskResult, int]] = []

    def progress(result: TaskResult, seconds: float) -> None:
        assert 0 <= seconds < 60
        told.append((result, len(encoder.asked)))

    results = Evaluator.load(tasks).score(encoder, num_resamples=100, progress=progress)
    assert [result for result, _ in told] == results and [r.task for r in results] == ["one", "three"]
    assert [asked for _, asked in told] == [1, 2]
    assert "intervals" in told[0][0].details


def test_item_scores_are_kept_beside_the_json(tmp_path: Path) -> None:
    results = Evaluator.load([ItemTask(name="s", sentences=["a", "bb", "ccc"])]).score(CountingEncoder())
    write_task_results(tmp_path / "student.json", [*results, *RESULTS])
    assert "item_scores" not in (tmp_path / "student.json").read_text()
    first, *others = read_task_results(tmp_path / "student.json")
    assert (first, others) == (results[0], RESULTS)
    assert {key: s.value() for key, s in first.item_scores.items()} == {"de/long": 200 / 3, "mean/long": 200 / 3}
    assert others[0].item_scores == {} and first.tables == {}


def test_tasks_share_one_cache_and_those_without_a_teacher_are_left_out() -> None:
    tasks = [LengthTask(name="one", sentences=["a", "bb"]), TeacherTask(name="two", sentences=["bb", "ccc"])]
    evaluator = Evaluator.load(tasks)
    assert evaluator.need_teacher and not Evaluator.load(tasks[:1]).need_teacher
    assert {name: list(texts) for name, texts in evaluator.texts().items()} == {
        "one": ["a", "bb"],
        "two": ["bb", "ccc"],
    }
    encoder = CountingEncoder()
    results = evaluator.score(encoder, CountingEncoder())
    assert as_metrics(results) == {"one/mean/length": 3.0, "two/mean/length": 5.0}
    assert encoder.asked == [["a", "bb"], ["ccc"]]
    assert [r.task for r in evaluator.score(CountingEncoder())] == ["one"]


def test_the_problems_of_all_tasks_come_together() -> None:
    tasks = [LengthTask(name="one", broken="no a"), LengthTask(name="two"), LengthTask(name="three", broken="no b")]
    with pytest.raises(MlkdError) as caught:
        Evaluator.load(tasks)
    assert [p.what for p in caught.value.problems] == ["no a", "no b"]


def test_undefined_scores_are_no_metrics() -> None:
    assert as_metrics(RESULTS) == {
        "tatoeba/de/accuracy": 60.0,
        "tatoeba/mean/accuracy": 61.0,
        "tatoeba/de/f1": 5.0,
        "mse/de/mse": 0.5,
    }


def test_the_metric_that_chooses() -> None:
    assert BestMetric.find("", RESULTS) == BestMetric("tatoeba/mean/accuracy", True)
    assert BestMetric.find("", RESULTS[::-1]) == BestMetric("mse/mean/mse", False)
    assert BestMetric.find("mse/de/mse", RESULTS) == BestMetric("mse/de/mse", False)
    assert BestMetric.find("tatoeba/de/accuracy", RESULTS) == BestMetric("tatoeba/de/accuracy", True)
    assert BestMetric.find("tatoeba/de/accuracy", []) is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tatoeba/ed/accuracy", "no task gives 'tatoeba/ed/accuracy'. Did you mean 'tatoeba/de/accuracy'?"),
        ("tatoebe/mean/accuracy", "Did you mean 'tatoeba/mean/accuracy'?"),
        ("tatoeba/de/f1", "'f1' is not the main metric of 'tatoeba'; choose the best by accuracy"),
    ],
)
def test_a_metric_that_cannot_choose(key: str, words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        BestMetric.find(key, RESULTS)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E209", "evaluation.metric") and words in problem.what


@pytest.mark.parametrize(("higher", "better", "worse"), [(True, 2.0, 0.5), (False, 0.5, 2.0)])
def test_better_is_strictly_better_in_the_metrics_direction(higher: bool, better: float, worse: float) -> None:
    best = BestMetric("t/mean/m", higher)
    assert best.improves(worse, None)
    assert best.improves(better, 1.0)
    assert not best.improves(worse, 1.0)
    assert not best.improves(1.0, 1.0)
    assert not best.improves(float("nan"), 1.0)


def test_results_survive_json(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "step-1.json"
    write_task_results(path, RESULTS)
    assert read_task_results(path) == RESULTS
    write_task_results(path, [])
    assert read_task_results(path) == []
