"""One evaluation: checkpoints and tasks in, scores out; or earlier results side by side; or texts to be encoded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from mlkd.config.composition import as_flat_dict
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.errors import MlkdError, fail
from mlkd.evaluation.compare import compare
from mlkd.evaluation.evaluator import Evaluator
from mlkd.models.precomputed import TEXTS_FILE, PrecomputedEncoder, export_texts
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.size import describe_size
from mlkd.models.spec import ScoredEncoder
from mlkd.report.exports import write_tables
from mlkd.report.html import write_report
from mlkd.report.results import Results, write_results
from mlkd.report.terminal import print_tables
from mlkd.runtime.atomic_files import write_text
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.runtime.lock import is_held
from mlkd.runtime.run_folder import RunFolder, RunState, new_run_path
from mlkd.tasks.base import collect_problems
from mlkd.tasks.scoring.bootstrap import compare_systems
from mlkd.tasks.scoring.scores import TaskResult
from mlkd.version import __version__


def evaluate(config: EvaluateConfig) -> Results | None:
    """Do what `config` asks for; writes the results with their report and prints the tables.

    Returns:
        What was scored or compared; None where texts were exported.

    Raises:
        MlkdError: E3xx for data, E4xx for models, all of them before the first text is encoded.
    """
    if config.export_texts:
        export(config)
        return None
    if config.compare:
        results, folder = compare(config), output_folder(config)
    else:
        results, folder = score(config)
    write(results, folder)
    return results


@dataclass(slots=True)
class RunningEvaluation:
    """Running evaluation: each finished task is in results.json at once, and has a line on stderr.

    Args:
        config: of the evaluation.
        results: of the tasks that are finished; the last system is the one being scored.
        folder: of results.json, made for the first task that finishes, so that a failure before leaves none.
    """

    config: EvaluateConfig
    results: Results = field(default_factory=lambda: Results(systems=[], results={}))
    folder: Path | None = None

    def start_system(self, spec: ScoredEncoder, encoder: SentenceEncoder | PrecomputedEncoder) -> None:
        """Go on to the next system."""
        self.results.systems.append(spec.label)
        self.results.results[spec.label] = []
        described = spec.describe() | describe_encoder(encoder) | {"mlkd": __version__}
        self.results.describe[spec.label] = described

    def add_result(self, result: TaskResult, seconds: float) -> None:
        """Keep the result of one task of the system."""
        system = self.results.systems[-1]
        self.results.results[system].append(result)
        if self.folder is None:
            self.folder = output_folder(self.config)
            RunFolder(self.folder).write_environment(str(self.config.hardware.resolve()))
            print_progress(f"what is finished: {self.folder / 'results.json'}")
        write_results(self.folder / "results.json", self.results)
        position = f"{len(self.results.systems)}/{len(self.config.encoders)}"
        print_progress(f"{position} {system}: {result.task} {seconds:.1f} s")


def print_progress(line: str) -> None:
    """What happens meanwhile goes to stderr: stdout is for the tables."""
    print(line, file=sys.stderr, flush=True)


def score(config: EvaluateConfig) -> tuple[Results, Path]:
    """Score every checkpoint on every task; the results, and the folder that they are kept in."""
    device = config.hardware.resolve()
    evaluator = check(config)
    teacher_encoder = config.teacher_encoder
    teacher = teacher_encoder.open(config.hardware, device) if teacher_encoder is not None else None
    if teacher is None and evaluator.need_teacher:
        missing = ", ".join(task.name for task, _ in evaluator.loaded if task.needs_teacher)
        example = f"teacher.model={teacher_of_run(config.encoders) or 'sentence-transformers/LaBSE'}"
        raise fail("E205", f"is required by {missing}. Example: {example}", where="teacher.model")
    if teacher_encoder is not None and evaluator.need_teacher:
        evaluator = replace(evaluator, teacher=teacher_encoder.describe()["sha256"][:HASH_DIGITS])
    for line in unfinished_runs(config.encoders):
        print_progress(line)
    running = RunningEvaluation(config)
    for spec in config.encoders:
        encoder = spec.open(config.hardware, device)
        running.start_system(spec, encoder)
        evaluator.score(encoder, teacher, num_resamples=config.num_resamples, progress=running.add_result)
    results = running.results
    results.comparisons = compare_systems(results.results, config.num_resamples)
    return results, running.folder or output_folder(config)


def teacher_of_run(encoders: Sequence[ScoredEncoder]) -> str:
    """The teacher of the first run folder among them; empty where there is none."""
    for spec in encoders:
        run = RunFolder(Path(spec.model))
        if spec.model and run.config.is_file():
            found = as_flat_dict(run.config.read_text(encoding="utf-8")).get("teacher.model")
            return str(found or "")
    return ""


def unfinished_runs(encoders: Sequence[ScoredEncoder]) -> Iterator[str]:
    """A line for each that is the folder of a run whose student may not be its last."""
    for spec in encoders:
        run = RunFolder(Path(spec.model).expanduser())
        status = run.read_status() if spec.model and run.student.is_dir() else None
        if status is None or status.state is RunState.finished:
            continue
        states = {
            RunState.running: "is still running" if is_held(run.lock_file) else "was killed",
            RunState.interrupted: f"was interrupted at step {status.step:,}",
            RunState.failed: f"failed ({status.error})",
        }
        yield f"warning: {spec.model} is not finished: it {states[status.state]}; its best student so far is scored"


def describe_encoder(encoder: SentenceEncoder | PrecomputedEncoder) -> dict[str, int]:
    """How large it is, as far as that is known."""
    return describe_size(encoder) if isinstance(encoder, SentenceEncoder) else {"dimension": encoder.dimension}


def export(config: EvaluateConfig) -> None:
    """Write every text of the tasks to a file, for vectors that are computed elsewhere."""
    texts = Evaluator.load(config.task.values()).encoded_texts()
    folder = Path(config.export_texts).expanduser()
    count = export_texts(folder, texts)
    print(f"{count:,} texts: {folder / TEXTS_FILE}")
    print(f"next: write {folder}/<name>.npy, float32 (N, D), row n the vector of line n; then checkpoint={folder}")


def check(config: EvaluateConfig) -> Evaluator:
    """Locate all models and read all data; every problem at once."""
    errors: list[MlkdError] = []
    teacher = config.teacher_encoder
    encoders = [*config.encoders, *([] if teacher is None else [teacher])]
    for spec in encoders:
        try:
            spec.locate()
        except MlkdError as error:
            errors.append(error)
    evaluator = Evaluator([])
    try:
        evaluator = Evaluator.load(config.task.values())
    except MlkdError as error:
        errors.append(error)
    collect_problems(errors)
    check_vectors([spec for spec in encoders if spec.vectors], evaluator)
    return evaluator


def check_vectors(encoders: Sequence[ScoredEncoder], evaluator: Evaluator) -> None:
    """Every text of the tasks must be among those that vectors were computed for."""
    errors = []
    for spec in encoders:
        try:
            encoder = PrecomputedEncoder.open(spec.locate())
            encoder.check(evaluator.encoded_texts())
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)


def output_folder(config: EvaluateConfig) -> Path:
    """Where results go: as configured, into the run folder of a single checkpoint, or beside other evaluations."""
    if config.output_dir:
        folder = RunFolder(Path(config.output_dir))
        folder.create()
        return folder.path
    parent = Path("outputs/evaluations")
    if len(config.encoders) == 1:
        run = Path(config.encoders[0].model)
        parent = run / "evaluations" if (run / "student").is_dir() else parent
    return new_run_path(parent, datetime.now())


def write(results: Results, folder: Path) -> None:
    """Results as JSON, Markdown, CSV, LaTeX and report.html, the tasks' own tables; the scores on the terminal."""
    write_results(folder / "results.json", results)
    tables = write_tables(folder, results)
    write_task_tables(results, folder)
    report = write_report(folder)
    print_tables(tables)
    print(f"\nresults: {folder / 'results.json'} (also .md, .csv, .tex)\nreport:  {report}")


def write_task_tables(results: Results, folder: Path) -> None:
    """What tasks found row by row (mined pairs), as `<system>/<task>.<table>.tsv`."""
    for position, system in enumerate(results.systems):
        for result in results.results[system]:
            for name, rows in result.tables.items():
                path = folder / system_folder(system, position) / f"{result.task}.{name}.tsv"
                path.parent.mkdir(exist_ok=True)
                lines = ("\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in row) for row in rows)
                write_text(path, "".join(f"{line}\n" for line in lines))


def system_folder(system: str, position: int) -> str:
    """A folder name for a system: its number, and what is readable of the end of its name.

    >>> system_folder("outputs/demo/2026-01-31", 0)
    '1-outputs-demo-2026-01-31'
    """
    return f"{position + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', system).strip('-.')[-60:]}"
