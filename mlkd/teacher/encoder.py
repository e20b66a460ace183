"""The teacher: a frozen encoder, whose vectors are the targets."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlkd.errors import MlkdError, Problem
from mlkd.models.spec import EncoderSpec
from mlkd.teacher.reduction import TeacherReduction


@dataclass(kw_only=True, slots=True)
class Teacher(EncoderSpec):
    """The frozen encoder whose vectors are the targets; see EncoderSpec for its model and settings.

    Args:
        reduction: to fewer dimensions, for a student of fewer dimensions; see TeacherReduction.
    """

    reduction: TeacherReduction = field(default_factory=TeacherReduction)

    def __post_init__(self) -> None:
        problems = list(self.setting_problems())
        if not self.model:
            what = "is required and not set. Example: teacher=minilm or teacher.model=<folder>"
            problems.insert(0, Problem("E205", what, "model"))
        if problems:
            raise MlkdError(problems)
