"""What must hold before a step is paid for: files, folders, device and dimensions, all problems together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mlkd.config import TrainConfig, needs_projection
from mlkd.errors import MlkdError, Problem
from mlkd.evaluations import Evaluations
from mlkd.models.folder import folder_dimension
from mlkd.tasks.mse import MseTask


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found: the device, and the evaluation data they had to read."""

    device: torch.device
    evaluations: Evaluations


def check_run(config: TrainConfig) -> Checked:
    """Look at everything a run needs, but open no weights and no training text.

    Raises:
        MlkdError: every problem found, from all parts.
    """
    problems: list[Problem] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except MlkdError as error:
            problems.extend(error.problems)
            return None

    device = attempt(config.hardware.resolve)
    teacher = attempt(config.teacher.locate)
    before = len(problems)
    attempt(config.student.check_files)
    if teacher is not None and len(problems) == before:
        attempt(lambda: _check_dimensions(config, folder_dimension(teacher)))
    attempt(config.data.check_files)
    evaluations = attempt(lambda: Evaluations.load(config.task.values()))
    if problems:
        raise MlkdError(problems)
    return Checked(device, evaluations)


def _check_dimensions(config: TrainConfig, teacher_dimension: int) -> None:
    student_dimension = config.student.dimension
    problem = needs_projection(config, student_dimension, teacher_dimension)
    if problem is not None:
        raise MlkdError(problem)
    mse_tasks = [name for name, task in config.task.items() if isinstance(task, MseTask)]
    if mse_tasks and student_dimension != teacher_dimension:
        what = f"compares vectors: teacher dim {teacher_dimension} != student dim {student_dimension}"
        remedy = f"leave it out with '~task.{mse_tasks[0]}', or set student.dense_dim={teacher_dimension}"
        raise MlkdError(Problem("E210", what, f"task.{mse_tasks[0]}", remedy))
