"""Schema of mlkd-eval: encoders and tasks, or results to put side by side, or texts to write out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlkd.errors import MlkdError, Problem
from mlkd.models.spec import EncoderSettings, EncoderSpec, ScoredEncoder
from mlkd.runtime.devices import Hardware
from mlkd.tasks.base import Task
from mlkd.tasks.scoring.bootstrap import NUM_RESAMPLES
from mlkd.teacher.encoder import Teacher


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(EncoderSettings):
    """One evaluation of one or more checkpoints; its EncoderSettings hold for those that do not say otherwise.

    Args:
        checkpoint: run folder, model folder, hub id or precomputed vectors; or a mapping of model (or vectors), name,
            and any of EncoderSettings; or a list of these.
        teacher: encoder whose vectors tasks like mse compare with: `teacher=labse` or `teacher.model=`, as in training.
        num_resamples: bootstrap replicates behind each 95 % interval; paired tests draw ten times as many. 0: neither.
        compare: files or folders of results.json to put side by side; nothing is scored.
        allow_partial: compare what can be compared and count the rest, instead of refusing.
        export_texts: folder that gets the distinct texts of the tasks, one a line, for vectors computed elsewhere.
        output_dir: of results; empty puts them into `<run folder>/evaluations/<time>`, or outputs/evaluations/<time>.
    """

    checkpoint: Any = None
    teacher: EncoderSpec = field(default_factory=EncoderSpec)
    num_resamples: int = NUM_RESAMPLES
    compare: list[str] = field(default_factory=list)
    allow_partial: bool = False
    export_texts: str = ""
    hardware: Hardware = field(default_factory=Hardware)
    task: dict[str, Task] = field(default_factory=dict)
    output_dir: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise MlkdError(problems)

    def _problems(self) -> Iterator[Problem]:
        modes = {"checkpoint": self._entries(), "compare": self.compare, "export_texts": self.export_texts}
        given = [name for name, value in modes.items() if value]
        if not given:
            yield Problem("E205", "is required and not set. Example: checkpoint=outputs/demo/<time>", "checkpoint")
        if len(given) > 1:
            yield Problem("E209", f"set only one of {' and '.join(given)}", given[1])
        if not self.task and not self.compare:
            yield Problem("E205", "is required and not set. Example: task=[sts,tatoeba,bucc]", "task")
        if len(self.compare) == 1:
            yield Problem("E204", f"names one file ({self.compare[0]}); two or more are compared", "compare")
        if self.num_resamples != 0 and self.num_resamples < 100:
            what = f"must be 0 (no intervals) or >= 100, as fewer replicates have no tails (got {self.num_resamples})"
            yield Problem("E204", what, "num_resamples")
        yield from self._model_problems()

    def _model_problems(self) -> Iterator[Problem]:
        """What is wrong with the settings of all models, then with each entry of `checkpoint`."""
        if problems := self.setting_problems():
            yield from problems
            return
        yield from (replace(p, where=f"teacher.{p.where}") for p in self.teacher.setting_problems())
        if isinstance(self.teacher, Teacher) and self.teacher.reduction.dim is not None:
            what = "reduces the targets of a training run; an evaluation compares with the teacher as it is"
            yield Problem("E209", what, "teacher.reduction.dim")
        labels = []
        for position, entry in enumerate(self._entries()):
            where = f"checkpoint[{position}]" if isinstance(self.checkpoint, list) else "checkpoint"
            try:
                labels.append(ScoredEncoder.parse(entry, **self.settings()).label)
            except MlkdError as error:
                yield from (replace(problem, where=f"{where}.{problem.where}") for problem in error.problems)
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            remedy = "give the same model under other settings a name of its own: {model: ..., layer: 8, name: ...}"
            yield Problem("E209", f"lists a checkpoint twice: {', '.join(twice)}", "checkpoint", remedy)

    def _entries(self) -> list[Any]:
        if self.checkpoint is None:
            return []
        return self.checkpoint if isinstance(self.checkpoint, list) else [self.checkpoint]

    @property
    def encoders(self) -> list[ScoredEncoder]:
        """What is scored."""
        return [ScoredEncoder.parse(entry, **self.settings()) for entry in self._entries()]

    @property
    def teacher_encoder(self) -> ScoredEncoder | None:
        """Whose vectors some tasks compare with; of the settings of all, only max_length is the teacher's too."""
        spec = self.teacher
        given = {"model": spec.model} | {k: v for k, v in spec.settings().items() if v is not None}
        return ScoredEncoder.parse(given, max_length=self.max_length) if spec.model else None

    @property
    def compared_files(self) -> list[Path]:
        """The results.json files of `compare`, where a folder stands for the one in it."""
        paths = [Path(name).expanduser() for name in self.compare]
        return [path / "results.json" if path.is_dir() else path for path in paths]
