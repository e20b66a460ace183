"""Schema of mlkd-train: one training run, and what must fit together in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.data.corpora.base import ParallelCorpus
from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.losses.mix import LossMix
from mlkd.models.students.base import Student
from mlkd.models.students.pretrained import PretrainedStudent
from mlkd.optim.optimizer import Optim
from mlkd.runtime.devices import Hardware
from mlkd.tasks.base import Task
from mlkd.teacher.encoder import Teacher
from mlkd.teacher.hard_negatives import NegativeMining
from mlkd.teacher.reduction import ReductionMethod


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """Evaluation while training.

    Args:
        every_steps: optimiser steps between evaluations; the last step is always evaluated. None: six times a run.
        metric: `task/language/metric` that chooses the best student, e.g. tatoeba/mean/accuracy. Empty takes the main
            metric of the first task.
        patience: stop after this many evaluations in a row without a new best; None never stops early.
    """

    every_steps: int | None = None
    metric: str = ""
    patience: int | None = None

    def __post_init__(self) -> None:
        problems = out_of_range(self, "every_steps", "patience", ge=1)
        if self.metric and self.metric.count("/") != 2:
            problems.append(Problem("E204", f"must be task/language/metric (got '{self.metric}')", "metric"))
        if problems:
            raise MlkdError(problems)


@dataclass(kw_only=True, slots=True)
class Checkpointing:
    """Training state on disk.

    Args:
        every_steps: optimiser steps between checkpoints; None: at every evaluation.
        keep: newest checkpoints kept.
    """

    every_steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        if problems := out_of_range(self, "every_steps", "keep", ge=1):
            raise MlkdError(problems)


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run.

    Args:
        name: names the run's folder, `<output_dir>/<name>/<time>`.
        seed: of fresh weights, dropout and the order of batches.
        dry_run: check everything, take one step on one batch, print sizes and estimated time, and stop.
        resume: continue an unfinished run of the same configuration under `<output_dir>/<name>`, or a sweep.
        log_every_steps: between lines of metrics.jsonl.
        output_dir: of runs.
        cache_dir: of tokens and teacher vectors, shared by all runs.
    """

    name: str = "run"
    teacher: Teacher
    student: Student
    data: ParallelCorpus
    optim: Optim
    loss: LossMix = field(default_factory=LossMix)
    negatives: NegativeMining = field(default_factory=NegativeMining)
    hardware: Hardware = field(default_factory=Hardware)
    task: dict[str, Task] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    hpo: HyperParameterSearch = field(default_factory=HyperParameterSearch)
    seed: int = 1
    dry_run: bool = False
    resume: bool = True
    log_every_steps: int = 10
    output_dir: str = "outputs"
    cache_dir: str = "outputs/cache"

    def __post_init__(self) -> None:
        self.student.take_teacher(self.teacher.model, self.teacher.revision)
        problems = [*range_problems(self), *self._relations()]
        if problems:
            raise MlkdError(problems)

    @property
    def needs_teacher_target(self) -> bool:
        """Whether the teacher must encode the translations too, for the loss or for its own reduction."""
        reduces = self.teacher.reduction.dim is not None or self.loss.reduces_teacher
        return self.loss.needs_teacher_target or (reduces and self.teacher.reduction.method is ReductionMethod.dense)

    def _relations(self) -> Iterator[Problem]:
        first = self.evaluation.metric.split("/")[0]
        names = [task.name for task in self.task.values()]
        if first and first not in names:
            yield Problem(
                "E209",
                f"names task '{first}', which this run does not evaluate; its tasks: {', '.join(names) or 'none'}",
                "evaluation.metric",
            )
        if self.evaluation.patience is not None and not self.task:
            yield Problem("E209", "early stopping needs a task to watch; set task=[tatoeba]", "evaluation.patience")
        if self.hardware.num_processes > self.optim.batch_size:
            what = f"must be at most optim.batch_size={self.optim.batch_size} (got {self.hardware.num_processes})"
            yield Problem("E204", what, "hardware.num_processes")
        if self.loss.alpha > 0 and self.optim.batch_size < 2:
            yield Problem("E209", "a ranking loss needs negatives: batch_size must be >= 2 (got 1)", "optim.batch_size")
        keeps_dropout = self.student.dropout is None and isinstance(self.student, PretrainedStudent)
        if self.loss.needs_second_dropout_pass and not (self.student.dropout or keeps_dropout):
            what = "candidates=dropout ranks two dropout passes, which are equal without dropout"
            yield Problem("E209", what, "student.dropout", "set student.dropout=0.1")
        if len(set(names)) != len(names):
            yield Problem("E209", f"two tasks share a name: {', '.join(names)}; set task.<key>.name", "task")


def range_problems(config: Any) -> Iterator[Problem]:
    """What is wrong with the root's own fields, of a TrainConfig or of the DictConfig that is to become one."""
    yield from out_of_range(config, "log_every_steps", ge=1)
    if not 0 <= config.seed < 2**63:
        yield Problem("E204", f"must be in [0, 2^63) (got {config.seed})", "seed")
    if not config.name or "/" in config.name or config.name.startswith("."):
        yield Problem("E204", f"must be a folder name (got '{config.name}')", "name")
