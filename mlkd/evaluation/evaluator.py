"""A set of loaded tasks, scored together for one encoder after another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, did_you_mean, fail
from mlkd.models.encoder import Encoder
from mlkd.runtime.atomic_files import write_json
from mlkd.tasks.base import Task, collect_problems
from mlkd.tasks.scoring.bootstrap import with_intervals
from mlkd.tasks.scoring.item_scores_file import find_item_scores, read_item_scores, write_item_scores
from mlkd.tasks.scoring.scores import TaskResult

ITEM_SCORES_SUFFIX = ".item_scores.safetensors"


class CachedEncoder:
    """An encoder that encodes each text once, for tasks that share texts; holds all vectors in one matrix.

    Shapes: M different texts met so far, C >= M rows of the matrix, D dimensions.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._row: dict[str, int] = {}
        self._vectors_CD = torch.empty(0, 0)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, D) on the CPU."""
        missing = list(dict.fromkeys(t for t in texts if t not in self._row))
        if missing or not texts:
            vectors = self.encoder.encode(missing)
            if not texts:
                return vectors
            self._append(missing, vectors)
        return self._vectors_CD[[self._row[t] for t in texts]]

    def _append(self, texts: Sequence[str], vectors: Tensor) -> None:
        start, end = len(self._row), len(self._row) + len(texts)
        if end > len(self._vectors_CD):
            # Doubled, so that many small tasks copy each vector a few times at most.
            grown_CD = vectors.new_empty(max(end, 2 * len(self._vectors_CD)), vectors.shape[1])
            if start:
                grown_CD[:start] = self._vectors_CD[:start]
            self._vectors_CD = grown_CD
        self._vectors_CD[start:end] = vectors
        self._row.update(zip(texts, range(start, end), strict=True))


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluator: tasks with their data, in the order of the configuration, that score one encoder after another.

    Args:
        loaded: each task and what it loaded.
        teacher: names the teacher in the protocol of the tasks that compare with one; their numbers depend on it.
    """

    loaded: list[tuple[Task, Any]]
    teacher: str = ""

    @classmethod
    def load(cls, tasks: Iterable[Task]) -> Evaluator:
        """Read the data of all tasks.

        Raises:
            MlkdError: the problems of all of them together.
        """
        loaded, errors = [], []
        for task in tasks:
            try:
                loaded.append((task, task.load()))
            except MlkdError as error:
                errors.append(_of_task(error, task.name))
        collect_problems(errors)
        return cls(loaded)

    @property
    def need_teacher(self) -> bool:
        return any(task.needs_teacher for task, _ in self.loaded)

    def texts(self) -> dict[str, Iterable[str]]:
        """Evaluated sentences by task name."""
        return {task.name: task.texts(data) for task, data in self.loaded}

    def encoded_texts(self) -> Iterator[str]:
        """Every sentence that an encoder may be asked for, repeated where tasks share it."""
        for task, data in self.loaded:
            yield from task.encoded_texts(data)

    def score(
        self,
        encoder: Encoder,
        teacher: Encoder | None = None,
        *,
        num_resamples: int = 0,
        progress: Callable[[TaskResult, float], None] | None = None,
    ) -> list[TaskResult]:
        """Results of all tasks; those that need a teacher are left out where there is none.

        Args:
            encoder: is scored.
            teacher: for the tasks that compare with one.
            num_resamples: of the 95 % bootstrap interval that each score gets; 0 for none, which is cheaper.
            progress: is told each result as soon as it is there, and the seconds that it took.
        """
        cached = CachedEncoder(encoder)
        results = []
        for task, data in self.loaded:
            if teacher is None and task.needs_teacher:
                continue
            start = time.perf_counter()
            result = task.score(data, encoder if task.needs_uncached else cached, teacher)
            if task.needs_teacher and self.teacher:
                result = replace(result, protocol=f"{result.protocol}; teacher {self.teacher}")
            results.append(with_intervals(result, num_resamples) if num_resamples else result)
            if progress is not None:
                progress(results[-1], time.perf_counter() - start)
        return results


def _of_task(error: MlkdError, name: str) -> MlkdError:
    """The same problems, each naming the task: a file alone does not say which key to mend."""
    key = f"task.{name}"
    return MlkdError(
        [
            p if p.where.startswith("task.") else replace(p, where=f"{key}: {p.where}" if p.where else key)
            for p in error.problems
        ]
    )


def as_metrics(results: Iterable[TaskResult]) -> dict[str, float]:
    """All defined scores by `task/language/metric`."""
    return {key: value for result in results for key, value in result.as_metrics().items()}


@dataclass(frozen=True, slots=True)
class BestMetric:
    """The metric that chooses the best student, and its direction."""

    key: str
    higher_is_better: bool

    @classmethod
    def find(cls, key: str, results: Sequence[TaskResult]) -> BestMetric | None:
        """The declared metric, or the first task's main one for an empty `key`; None where nothing is evaluated.

        Raises:
            MlkdError: E209 where no task gives the metric, or where its direction is not declared by the task.
        """
        if not results:
            return None
        if not key:
            return cls(f"{results[0].task}/mean/{results[0].main}", results[0].higher_is_better)
        task, _, metric = key.split("/")
        for result in results:
            if result.task == task and any(f"{task}/{s.language}/{s.metric}" == key for s in result.scores):
                if metric != result.main:
                    raise fail(
                        "E209",
                        f"'{metric}' is not the main metric of '{task}'; choose the best by {result.main}",
                        where="evaluation.metric",
                    )
                return cls(key, result.higher_is_better)
        known = list(as_metrics(results))
        raise MlkdError(Problem("E209", f"no task gives '{key}'.{did_you_mean(key, known)}", "evaluation.metric"))

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is strictly better than `best`."""
        return best is None or (value > best if self.higher_is_better else value < best)


def write_task_results(path: Path, results: Sequence[TaskResult]) -> None:
    """Write the results of one encoder as JSON, and beside it what they were computed from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_item_scores(path.with_suffix(ITEM_SCORES_SUFFIX), {r.task: r.item_scores for r in results if r.item_scores})
    write_json(path, [result.as_json() for result in results])


def read_task_results(path: Path) -> list[TaskResult]:
    """What `write_task_results` wrote."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    results = [TaskResult.from_json(entry) for entry in entries]
    beside = find_item_scores(path.with_suffix(ITEM_SCORES_SUFFIX))
    item_scores = read_item_scores(beside) if beside is not None else {}
    return [replace(result, item_scores=item_scores.get(result.task, {})) for result in results]
