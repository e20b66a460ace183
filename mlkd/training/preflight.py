"""Preflight: files, folders, device and dimensions are checked before anything expensive, all problems together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError, Problem
from mlkd.evaluation.evaluator import Evaluator
from mlkd.losses.feature import Projection
from mlkd.losses.mix import LossMix
from mlkd.models.masked_lm import check_mask_token
from mlkd.models.model_folder import folder_dimension, folder_sha256
from mlkd.models.students.base import Student
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.runtime.precision import autocast_type
from mlkd.tasks.base import Task
from mlkd.tasks.mse import MseTask
from mlkd.tasks.parallel import NearestTask
from mlkd.teacher.encoder import Teacher
from mlkd.teacher.reduction import ReductionMethod


@dataclass(frozen=True, slots=True)
class ResolvedTeacher:
    """The teacher as it was found.

    Args:
        folder: of the model.
        sha256: of its files.
        own_dimension: of its vectors.
        reduced_dimension: that the run reduces them to; None for the teacher as it is.
    """

    folder: Path
    sha256: str
    own_dimension: int
    reduced_dimension: int | None = None

    @property
    def dimension(self) -> int:
        """Of the targets, after any reduction."""
        return self.reduced_dimension or self.own_dimension


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What the checks resolved, once for the whole run.

    Args:
        device: of student and teacher.
        precision: autocast type of the student's passes, None for fp32.
        teacher_precision: likewise, of the teacher's.
        max_tokens: token positions in one forward pass.
        teacher: where it is and what it is.
        evaluations: tasks with their data.
    """

    device: torch.device
    precision: torch.dtype | None
    teacher_precision: torch.dtype | None
    max_tokens: int
    teacher: ResolvedTeacher
    evaluations: Evaluator


def run_preflight(config: TrainConfig) -> PreflightResult:
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
    folder = attempt(config.teacher.locate, "teacher")
    before = len(problems)
    attempt(config.student.check_files, "student")
    if folder is not None and len(problems) == before:
        attempt(lambda: _check_dimensions(config, folder_dimension(folder)))
    if len(problems) == before and config.loss.delta:
        attempt(lambda: _check_mask_token(config.student), "student")
    attempt(config.data.check_files, "data")
    evaluations = attempt(lambda: Evaluator.load(config.task.values()))
    if problems:
        raise MlkdError(problems)
    dimension = folder_dimension(folder)
    teacher = ResolvedTeacher(
        folder,
        folder_sha256(folder),
        dimension,
        reduced_dimension(wanted_dimension(config.teacher, config.student, config.loss), dimension),
    )
    if evaluations.need_teacher:
        name = teacher_name(teacher, config.teacher.reduction.method)
        evaluations = dataclasses.replace(evaluations, teacher=name)
    return PreflightResult(
        device=device,
        precision=autocast_type(config.hardware.precision, device),
        teacher_precision=autocast_type(config.hardware.teacher_precision, device),
        max_tokens=config.hardware.forward_tokens(device),
        teacher=teacher,
        evaluations=evaluations,
    )


def teacher_name(teacher: ResolvedTeacher, method: ReductionMethod) -> str:
    """The start of its hash and, where the run reduces it, to what."""
    dim = teacher.reduced_dimension
    reduced = "" if dim is None else f" in {dim} dimensions ({method.value})"
    return teacher.sha256[:HASH_DIGITS] + reduced


def _check_dimensions(config: TrainConfig, own_dimension: int) -> None:
    dim, student_dimension = config.teacher.reduction.dim, config.student.read_dimension()
    if dim is not None and dim > own_dimension:
        what = f"must be at most the teacher's dimension {own_dimension} (got {dim})"
        raise MlkdError(Problem("E210", what, "teacher.reduction.dim"))
    teacher_dimension = (
        reduced_dimension(wanted_dimension(config.teacher, config.student, config.loss), own_dimension) or own_dimension
    )
    problem = needs_projection(config.loss, student_dimension, teacher_dimension)
    if problem is not None:
        raise MlkdError(problem)
    direct = [name for name, task in config.task.items() if _compares_vectors(task)]
    if direct and student_dimension != teacher_dimension:
        what = f"compares vectors: teacher dim {teacher_dimension} != student dim {student_dimension}"
        remedy = f"leave it out with '~task.{direct[0]}', or set student.dense_dim={teacher_dimension}"
        if isinstance(config.task[direct[0]], NearestTask):
            remedy += f", or task.{direct[0]}.source_encoder=student"
        raise MlkdError(Problem("E210", what, f"task.{direct[0]}", remedy))


def _compares_vectors(task: Task) -> bool:
    return isinstance(task, MseTask) or (isinstance(task, NearestTask) and task.needs_teacher)


def _check_mask_token(student: Student) -> None:
    tokenizer = student.open_tokenizer()
    if tokenizer is not None:
        check_mask_token(tokenizer)


def wanted_dimension(teacher: Teacher, student: Student, loss: LossMix) -> int | None:
    """What the teacher is to be reduced to, where the run or its loss asks for that."""
    dim = teacher.reduction.dim
    return student.read_dimension() if dim is None and loss.reduces_teacher else dim


def reduced_dimension(wanted: int | None, teacher_dimension: int) -> int | None:
    """What the teacher's vectors are reduced to, None for the teacher as it is."""
    return wanted if wanted is not None and wanted < teacher_dimension else None


def needs_projection(loss: LossMix, student_dimension: int, teacher_dimension: int) -> Problem | None:
    """E210 where the loss compares vectors of different dimension.

    Args:
        loss: of the run.
        student_dimension: of its vectors.
        teacher_dimension: after any reduction.
    """
    if student_dimension == teacher_dimension or not loss.compares_dimensions:
        return None
    hint = f"set student.dense_dim={teacher_dimension}"
    # A projection serves the feature term alone.
    direct = [name for name, _, term in loss.active_terms if term.compares_dimensions]
    if direct == ["feature"] and loss.feature.projection is Projection.none:
        hint += ", or loss.feature.projection=dense"
    if student_dimension < teacher_dimension:
        hint += f", or teacher.reduction.dim={student_dimension}"
    return Problem("E210", f"teacher dim {teacher_dimension} != student dim {student_dimension}", remedy=hint)
