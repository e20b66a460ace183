"""One evaluation: checkpoints and tasks in, scores out; or earlier results side by side; or texts to be encoded."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from mlkd import __version__
from mlkd.conclude import describe_size
from mlkd.errors import MlkdError, fail
from mlkd.evaluate_config import EvaluateConfig
from mlkd.evaluations import Evaluations
from mlkd.models.choice import EncoderChoice
from mlkd.models.precomputed import TEXTS_FILE, PrecomputedEncoder, export_texts
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.report.exports import write_tables
from mlkd.report.html import write_report
from mlkd.report.merging import merge_results
from mlkd.report.results import Results, read_results, write_results
from mlkd.report.terminal import print_tables
from mlkd.runtime.devices import autocast_type, place
from mlkd.runtime.run_folder import RunFolder, new_run_path, write_text
from mlkd.tasks.base import TaskResult, collect_problems
from mlkd.tasks.significance import compare_systems

log = logging.getLogger("mlkd")


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
    results = compare(config) if config.compare else score(config)
    folder = output_folder(config)
    if not config.compare:
        RunFolder(folder).write_environment(str(config.hardware.resolve()))
    write(results, folder)
    return results


def score(config: EvaluateConfig) -> Results:
    """Score every checkpoint on every task."""
    device = config.hardware.resolve()
    evaluations = check(config)
    teacher = load(config, config.teacher, device) if config.teacher else None
    if teacher is None and evaluations.need_teacher:
        missing = ", ".join(task.name for task, _ in evaluations.loaded if task.needs_teacher)
        example = "teacher_model=sentence-transformers/LaBSE"
        raise fail("E205", f"is required by {missing}. Example: {example}", where="teacher_model")
    results: dict[str, list[TaskResult]] = {}
    described = {}
    for choice in config.encoders:
        encoder = load(config, choice, device)
        results[choice.label] = evaluations.score(encoder, teacher, num_resamples=config.num_resamples)
        described[choice.label] = choice.describe() | describe_encoder(encoder) | {"mlkd": __version__}
    comparisons = compare_systems(results, config.num_resamples)
    return Results(systems=list(results), results=results, describe=described, comparisons=comparisons)


def describe_encoder(encoder: SentenceEncoder | PrecomputedEncoder) -> dict[str, int]:
    """How large it is, as far as that is known."""
    return describe_size(encoder) if isinstance(encoder, SentenceEncoder) else {"dimension": encoder.dimension}


def compare(config: EvaluateConfig) -> Results:
    """Earlier results side by side.

    Raises:
        MlkdError: E301, E309 for a file; E322 where numbers of the files cannot be compared.
    """
    found, errors = {}, []
    for path in config.compared_files:
        try:
            found[path] = read_results(path, with_samples=True)
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)
    if len({results.mlkd for results in found.values()}) > 1:
        print("scored by", ", ".join(f"mlkd {results.mlkd} ({path})" for path, results in found.items()))
    merged = merge_results(found, allow_partial=config.allow_partial, num_resamples=config.num_resamples)
    for reason in merged.reasons:
        print(f"left out: {reason}")
    if merged.reasons:
        print(f"left out: {merged.num_left_out:,} numbers that are not in all files, or not alike\n")
    return merged.results


def export(config: EvaluateConfig) -> None:
    """Write every text of the tasks to a file, for vectors that are computed elsewhere."""
    texts = Evaluations.load(config.task.values()).texts()
    folder = Path(config.export_texts).expanduser()
    count = export_texts(folder, (text for found in texts.values() for text in found))
    print(f"{count:,} texts: {folder / TEXTS_FILE}")
    print(f"next: write {folder}/<name>.npy, float32 (N, D), row n the vector of line n; then checkpoint={folder}")


def check(config: EvaluateConfig) -> Evaluations:
    """Locate all models and read all data; every problem at once."""
    errors: list[MlkdError] = []
    encoders = [*config.encoders, *([config.teacher] if config.teacher else [])]
    for choice in encoders:
        try:
            choice.locate()
        except MlkdError as error:
            errors.append(error)
    evaluations = Evaluations([])
    try:
        evaluations = Evaluations.load(config.task.values())
    except MlkdError as error:
        errors.append(error)
    collect_problems(errors)
    check_vectors([choice for choice in encoders if choice.vectors], evaluations)
    return evaluations


def check_vectors(choices: Sequence[EncoderChoice], evaluations: Evaluations) -> None:
    """Every text of the tasks must be among those that vectors were computed for."""
    errors = []
    for choice in choices:
        try:
            encoder = PrecomputedEncoder.open(choice.locate())
            encoder.check(text for texts in evaluations.texts().values() for text in texts)
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)


def load(config: EvaluateConfig, choice: EncoderChoice, device: torch.device) -> SentenceEncoder | PrecomputedEncoder:
    """One encoder, on `device` where it computes."""
    encoder = choice.load(trust_remote_code=config.trust_remote_code)
    if isinstance(encoder, PrecomputedEncoder):
        return encoder
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
    parent = Path("outputs/evaluations")
    if len(config.encoders) == 1:
        run = Path(config.encoders[0].path)
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
