"""One evaluation: checkpoints and tasks in, scores out."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import torch

from mlkd.conclude import describe_size
from mlkd.config import EvaluateConfig
from mlkd.errors import MlkdError, Problem, fail
from mlkd.evaluations import Evaluations
from mlkd.models.folder import folder_sha256, load_encoder
from mlkd.models.locate import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.report.results import Results, write_results
from mlkd.report.tables import build_tables, print_tables, to_markdown
from mlkd.runtime.devices import autocast_type, place
from mlkd.runtime.run_folder import RunFolder, new_run_path, write_text
from mlkd.tasks.base import TaskResult, collect_problems


def evaluate(config: EvaluateConfig) -> Results:
    """Score every checkpoint on every task; writes results.json and results.md and prints the table.

    Raises:
        MlkdError: E3xx for data, E4xx for models, all of them before the first text is encoded.
    """
    device = config.hardware.resolve()
    names = [*config.checkpoints, *([config.teacher_model] if config.teacher_model else [])]
    evaluations = check(config, names)
    teacher = load(config, config.teacher_model, device) if config.teacher_model else None
    if teacher is None and evaluations.need_teacher:
        missing = ", ".join(task.name for task, _ in evaluations.loaded if task.needs_teacher)
        example = "teacher_model=sentence-transformers/LaBSE"
        raise fail("E205", f"is required by {missing}. Example: {example}", where="teacher_model")
    results: dict[str, list[TaskResult]] = {}
    described = {}
    for name in config.checkpoints:
        encoder = load(config, name, device)
        results[name] = evaluations.score(encoder, teacher)
        folder = locate_model(name)
        described[name] = {"path": str(folder), "sha256": folder_sha256(folder), **describe_size(encoder)}
    found = Results(systems=list(results), results=results, describe=described)
    write(found, output_folder(config))
    return found


def check(config: EvaluateConfig, names: list[str]) -> Evaluations:
    """Locate all models and read all data; every problem at once."""
    errors: list[MlkdError] = []
    if len(set(config.checkpoints)) != len(config.checkpoints):
        errors.append(MlkdError(Problem("E209", "lists a checkpoint twice", "checkpoint")))
    for name in names:
        try:
            locate_model(name)
        except MlkdError as error:
            errors.append(error)
    evaluations = Evaluations([])
    try:
        evaluations = Evaluations.load(config.task.values())
    except MlkdError as error:
        errors.append(error)
    collect_problems(errors)
    return evaluations


def load(config: EvaluateConfig, name: str, device: torch.device) -> SentenceEncoder:
    """One encoder on `device`."""
    encoder = load_encoder(
        name,
        pooling=Pooling[config.pooling] if config.pooling and name != config.teacher_model else None,
        max_length=config.max_length,
        trust_remote_code=config.trust_remote_code,
    )
    encoder.precision = autocast_type(config.hardware.precision, device)
    encoder.encode_tokens = config.hardware.forward_tokens(device)
    place(encoder.body, device, encoder.precision)
    return encoder.to(device)


def output_folder(config: EvaluateConfig) -> Path:
    """Where results go: as configured, into the run folder of a single checkpoint, or beside other evaluations."""
    if config.output_dir:
        folder = RunFolder(Path(config.output_dir))
        folder.create()
        return folder.path
    first = Path(config.checkpoints[0])
    is_run = len(config.checkpoints) == 1 and (first / "student").is_dir()
    return new_run_path(first / "evaluations" if is_run else Path("outputs/evaluations"), datetime.now())


def write(results: Results, folder: Path) -> None:
    """results.json and results.md in `folder`, the table on the terminal."""
    tables = build_tables(results)
    write_results(folder / "results.json", results)
    write_text(folder / "results.md", to_markdown(tables))
    print_tables(tables)
    print(f"\nresults: {folder / 'results.json'}")
