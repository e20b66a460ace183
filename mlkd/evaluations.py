"""A set of loaded tasks, scored together for one encoder after another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, did_you_mean, fail
from mlkd.models.encoder import Encoder
from mlkd.runtime.run_folder import write_json
from mlkd.tasks.base import Score, Task, TaskResult, collect_problems


class CachedEncoder:
    """An encoder that encodes each text once, for tasks that share texts; holds all vectors in memory."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._rows: dict[str, Tensor] = {}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, D) on the CPU."""
        missing = list(dict.fromkeys(t for t in texts if t not in self._rows))
        if missing or not texts:
            vectors = self.encoder.encode(missing)
            if not texts:
                return vectors
            self._rows.update(zip(missing, vectors.unbind(0), strict=True))
        return torch.stack([self._rows[t] for t in texts])


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Tasks with their data, in the order of the configuration."""

    loaded: list[tuple[Task, Any]]

    @classmethod
    def load(cls, tasks: Iterable[Task]) -> Evaluations:
        """Read the data of all tasks.

        Raises:
            MlkdError: the problems of all of them together.
        """
        loaded, errors = [], []
        for task in tasks:
            try:
                loaded.append((task, task.load()))
            except MlkdError as error:
                errors.append(error)
        collect_problems(errors)
        return cls(loaded)

    @property
    def need_teacher(self) -> bool:
        return any(task.needs_teacher for task, _ in self.loaded)

    def texts(self) -> dict[str, Iterable[str]]:
        """Evaluated sentences by task name."""
        return {task.name: task.texts(data) for task, data in self.loaded}

    def score(self, encoder: Encoder, teacher: Encoder | None = None) -> list[TaskResult]:
        """Results of all tasks; those that need a teacher are left out where there is none."""
        cached = CachedEncoder(encoder)
        return [
            task.score(data, cached, teacher)
            for task, data in self.loaded
            if teacher is not None or not task.needs_teacher
        ]


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
    """Write the results of one encoder as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(result) for result in results])


def read_task_results(path: Path) -> list[TaskResult]:
    """What `write_task_results` wrote."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [TaskResult(**{**entry, "scores": [Score(**s) for s in entry["scores"]]}) for entry in entries]
