"""What must hold before a step is paid for: files, folders, device and dimensions, all problems together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError, Problem
from mlkd.evaluation.evaluator import Evaluations
from mlkd.losses.feature import Projection
from mlkd.models.masked_lm import check_mask_token
from mlkd.models.serialization import folder_dimension, folder_sha256
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.tasks.base import Task
from mlkd.tasks.mse import MseTask
from mlkd.tasks.parallel import NearestTask


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

    def attempt(check: Callable[[], Any], where: str = "") -> Any:
        try:
            return check()
        except MlkdError as error:
            problems.extend(dataclasses.replace(p, where=p.where or where) for p in error.problems)
            return None

    device = attempt(config.hardware.resolve_for_training)
    teacher = attempt(config.teacher.locate, "teacher")
    before = len(problems)
    attempt(config.student.check_files, "student")
    if teacher is not None and len(problems) == before:
        attempt(lambda: _check_dimensions(config, folder_dimension(teacher)))
    if len(problems) == before:
        attempt(lambda: _check_mask_token(config), "student")
    attempt(config.data.check_files, "data")
    evaluations = attempt(lambda: Evaluations.load(config.task.values()))
    if problems:
        raise MlkdError(problems)
    if evaluations.need_teacher:
        evaluations = dataclasses.replace(evaluations, teacher=teacher_name(config, teacher))
    return Checked(device, evaluations)


def teacher_name(config: TrainConfig, folder: Path) -> str:
    """The start of its hash and, where the run reduces it, to what."""
    dim = reduced_dimension(config, folder_dimension(folder))
    reduced = "" if dim is None else f" in {dim} dimensions ({config.teacher.reduction.method.value})"
    return folder_sha256(folder)[:HASH_DIGITS] + reduced


def _check_dimensions(config: TrainConfig, own_dimension: int) -> None:
    dim, student_dimension = config.teacher.reduction.dim, config.student.read_dimension()
    if dim is not None and dim > own_dimension:
        what = f"must be at most the teacher's dimension {own_dimension} (got {dim})"
        raise MlkdError(Problem("E210", what, "teacher.reduction.dim"))
    teacher_dimension = reduced_dimension(config, own_dimension) or own_dimension
    problem = needs_projection(config, student_dimension, teacher_dimension)
    if problem is not None:
        raise MlkdError(problem)
    direct = [name for name, task in config.task.items() if _compares_vectors(task)]
    if direct and student_dimension != teacher_dimension:
        what = f"compares vectors: teacher dim {teacher_dimension} != student dim {student_dimension}"
        remedy = f"leave it out with '~task.{direct[0]}', or set student.dense_dim={teacher_dimension}"
        if isinstance(config.task[direct[0]], NearestTask):
            remedy += f", or task.{direct[0]}.english=encoder"
        raise MlkdError(Problem("E210", what, f"task.{direct[0]}", remedy))


def _compares_vectors(task: Task) -> bool:
    return isinstance(task, MseTask) or (isinstance(task, NearestTask) and task.needs_teacher)


def _check_mask_token(config: TrainConfig) -> None:
    tokenizer = config.student.open_tokenizer() if config.loss.mlm_weight else None
    if tokenizer is not None:
        check_mask_token(tokenizer)


def reduced_dimension(config: TrainConfig, teacher_dimension: int) -> int | None:
    """What the teacher's vectors are reduced to, None for the teacher as it is."""
    dim = config.teacher.reduction.dim
    if dim is None and config.loss.reduces_teacher:
        dim = config.student.read_dimension()
    return dim if dim is not None and dim < teacher_dimension else None


def needs_projection(config: TrainConfig, student_dimension: int, teacher_dimension: int) -> Problem | None:
    """E210 where the loss compares vectors of different dimension.

    Args:
        config: of the run.
        student_dimension: of its vectors.
        teacher_dimension: after any reduction.
    """
    if student_dimension == teacher_dimension or not config.loss.compares_dimensions:
        return None
    hint = f"set student.dense_dim={teacher_dimension}"
    # A projection serves the feature term alone.
    if config.loss.feature.projection is Projection.none and not config.loss.ranks_against_teacher:
        hint += ", or loss.feature.projection=dense"
    if student_dimension < teacher_dimension:
        hint += f", or teacher.reduction.dim={student_dimension}"
    return Problem("E210", f"teacher dim {teacher_dimension} != student dim {student_dimension}", remedy=hint)
