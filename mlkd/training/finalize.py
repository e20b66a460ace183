"""Finalization: the best student's scores beside the untrained student's and the teacher's, and the report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from mlkd.data.pairs import LanguagePair
from mlkd.evaluation.evaluator import read_task_results, write_task_results
from mlkd.models.encoder import Encoder
from mlkd.models.model_folder import folder_sha256
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder
from mlkd.models.size import describe_size
from mlkd.report.exports import write_tables
from mlkd.report.html import write_report
from mlkd.report.plots.projection import project, write_projection
from mlkd.report.results import Results, write_results
from mlkd.report.terminal import print_tables
from mlkd.runtime.devices import place
from mlkd.runtime.run_folder import RunFolder
from mlkd.tasks.scoring.bootstrap import NUM_RESAMPLES, compare_systems, with_intervals
from mlkd.training.preflight import PreflightResult, ResolvedTeacher
from mlkd.training.setup import TrainingSetup

log = logging.getLogger("mlkd")
PICTURE_FILE = "untrained_picture.safetensors"
PICTURE_SENTENCES = 40
PICTURE_MIN_SENTENCES = 8


def finalize(
    teacher_model: str,
    preflight: PreflightResult,
    setup: TrainingSetup,
    run: RunFolder,
    stop: Callable[[], None],
) -> None:
    """Score the best student and the teacher, write results.json, results.md and report.html, print the table.

    Args:
        config, checked, prepared, run: of the run.
        stop: called between encoders; raises when the run must end. The conclusion can be done again.
    """
    evaluations = preflight.evaluations
    best = load_best(setup, run)
    teacher_file = run.eval / "teacher.json"
    if not teacher_file.is_file():
        write_task_results(teacher_file, evaluations.score(setup.teacher, setup.teacher))
    stop()
    student_results = evaluations.score(best, setup.teacher)
    write_task_results(run.eval / "student.json", student_results)
    stop()
    scored = {
        "student": student_results,
        "untrained": read_task_results(run.eval / "untrained.json"),
        "teacher": read_task_results(teacher_file),
    }
    results = Results(
        systems=list(scored),
        results={name: [with_intervals(r, NUM_RESAMPLES) for r in found] for name, found in scored.items()},
        describe=describe_systems(teacher_model, preflight.teacher, best, run),
        comparisons=compare_systems(scored, NUM_RESAMPLES),
    )
    write_results(run.results_json, results)
    tables = write_tables(run.path, results)
    draw_picture(setup, best, run)
    write_report(run.path)
    print_tables(tables)
    print(f"\nstudent: {run.student}\nreport:  {run.report}")


def load_best(setup: TrainingSetup, run: RunFolder) -> SentenceEncoder:
    """The student in `student/`, on the device of the run: what was saved is what is scored."""
    device = setup.trainer.student.device
    best = load_encoder(str(run.student))
    place(best.backbone, device, None)
    best.encode_tokens = setup.trainer.max_tokens
    return best.to(device)


def describe_systems(
    model: str, teacher: ResolvedTeacher, student: SentenceEncoder, run: RunFolder
) -> dict[str, dict[str, Any]]:
    """What the compared encoders are; `model` is the teacher's name in the configuration."""
    return {
        "student": {"path": str(run.student), "sha256": folder_sha256(run.student), **describe_size(student)},
        "untrained": {"path": "the student before its first step", **describe_size(student)},
        "teacher": {"path": model, "sha256": teacher.sha256, "dimension": teacher.dimension},
    }


def save_picture_vectors(student: Encoder, setup: TrainingSetup, path: Path) -> None:
    """Vectors of held-out sentences before the first step, for the picture at the end."""
    texts = aligned_texts(setup.corpus.dev)
    if texts:
        save_file({language: student.encode(rows).contiguous() for language, rows in texts.items()}, path)


def draw_picture(setup: TrainingSetup, best: Encoder, run: RunFolder) -> None:
    """Held-out sentences in two dimensions, before and after; left out, and said so, where too few were held out."""
    texts = aligned_texts(setup.corpus.dev)
    if not texts:
        log.info("no picture of held-out sentences: data.dev_pairs holds out too few")
        return
    after = {language: best.encode(rows) for language, rows in texts.items()}
    write_projection(run.eval / "projection.json", project(after, texts, load_file(run.eval / PICTURE_FILE)))


def aligned_texts(dev: list[LanguagePair]) -> dict[str, list[str]]:
    """Held-out sentences by language, row-aligned: those that all languages share, else those of the largest pair."""
    if not dev:
        return {}
    counts = Counter(text for pair in dev for text in dict.fromkeys(pair.source))
    shared = [text for text, n in counts.items() if n == len(dev)][:PICTURE_SENTENCES]
    chosen = dev
    if len(shared) < PICTURE_MIN_SENTENCES:
        chosen = [max(dev, key=len)]
        shared = list(dict.fromkeys(chosen[0].source))[:PICTURE_SENTENCES]
    if len(shared) < PICTURE_MIN_SENTENCES:
        return {}
    texts = {chosen[0].source_language: shared}
    for pair in chosen:
        translation = dict(zip(reversed(pair.source), reversed(pair.target), strict=True))
        texts[pair.target_language] = [translation[text] for text in shared]
    return texts
