"""What one evaluation is: encoders and tasks, or results to put side by side, or texts to write out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlkd.errors import MlkdError, Problem
from mlkd.models.spec import EncoderChoice
from mlkd.runtime.devices import Hardware
from mlkd.tasks.base import Task
from mlkd.tasks.scoring.bootstrap import NUM_RESAMPLES


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """One evaluation of one or more checkpoints.

    Args:
        checkpoint: run folder, model folder, hub id or precomputed vectors; or a mapping of path (or vectors), name,
            pooling, layer, prompt, max_length and revision; or a list of these.
        teacher_model: encoder whose vectors tasks like mse compare with, named like a checkpoint; empty for none.
        pooling: mean, cls or max for plain transformers models; None takes the folder's own, mean where it has none.
        layer: of plain transformers models: 0 the embeddings, 8 the eighth layer, -1 the last; None the last.
        prompt: put before each text, e.g. 'query: '; None takes the model's default prompt.
        max_length: tokens; None takes the model's own. These four hold for checkpoints that do not say otherwise.
        num_resamples: bootstrap replicates behind each 95 % interval; paired tests draw ten times as many. 0: neither.
        compare: files or folders of results.json to put side by side; nothing is scored.
        allow_partial: compare what can be compared and count the rest, instead of refusing.
        export_texts: folder that gets the distinct texts of the tasks, one a line, for vectors computed elsewhere.
        output_dir: of results; empty puts them into `<run folder>/evaluations/<time>`, or outputs/evaluations/<time>.
    """

    checkpoint: Any = None
    teacher_model: str = ""
    pooling: str | None = None
    layer: int | None = None
    prompt: str | None = None
    max_length: int | None = None
    num_resamples: int = NUM_RESAMPLES
    compare: list[str] = field(default_factory=list)
    allow_partial: bool = False
    export_texts: str = ""
    hardware: Hardware = field(default_factory=Hardware)
    task: dict[str, Task] = field(default_factory=dict)
    trust_remote_code: bool = False
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
        try:
            EncoderChoice(path="any", **self._defaults())
        except MlkdError as error:
            yield from error.problems
            return
        labels = []
        for position, entry in enumerate(self._entries()):
            where = f"checkpoint[{position}]" if isinstance(self.checkpoint, list) else "checkpoint"
            try:
                labels.append(EncoderChoice.parse(entry, **self._defaults()).label)
            except MlkdError as error:
                yield from (replace(problem, where=f"{where}.{problem.where}") for problem in error.problems)
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            remedy = "give the same model under other settings a name of its own: {path: ..., layer: 8, name: ...}"
            yield Problem("E209", f"lists a checkpoint twice: {', '.join(twice)}", "checkpoint", remedy)

    def _entries(self) -> list[Any]:
        if self.checkpoint is None:
            return []
        return self.checkpoint if isinstance(self.checkpoint, list) else [self.checkpoint]

    def _defaults(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("pooling", "layer", "prompt", "max_length")}

    @property
    def encoders(self) -> list[EncoderChoice]:
        """What is scored."""
        return [EncoderChoice.parse(entry, **self._defaults()) for entry in self._entries()]

    @property
    def teacher(self) -> EncoderChoice | None:
        """Whose vectors some tasks compare with; pooled by its own folder's rule."""
        return EncoderChoice.parse(self.teacher_model, max_length=self.max_length) if self.teacher_model else None

    @property
    def compared_files(self) -> list[Path]:
        """The results.json files of `compare`, where a folder stands for the one in it."""
        paths = [Path(name).expanduser() for name in self.compare]
        return [path / "results.json" if path.is_dir() else path for path in paths]
