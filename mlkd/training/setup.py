"""From a checked configuration to a run that can take its first step: text, targets, tokens, student."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config.train_schema import TrainConfig
from mlkd.data.batches import Batches, Indices
from mlkd.data.corpora.base import Corpus
from mlkd.data.overlap import evaluation_overlap
from mlkd.data.report import DataReport
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import fail
from mlkd.models.encoder import Encoder
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.students.base import StudentCorpus
from mlkd.runtime.atomic_files import write_json
from mlkd.runtime.devices import autocast_type, place
from mlkd.runtime.hashing import fingerprint
from mlkd.runtime.run_folder import RunFolder
from mlkd.teacher.encoder import LazyTeacher
from mlkd.teacher.hard_negatives import TeacherKnowledge
from mlkd.teacher.reduction import ReducedTeacher, Taught
from mlkd.teacher.targets import TeacherTargets
from mlkd.teacher.vector_store import Positions, unit_norm
from mlkd.training.dataloader import TrainingData
from mlkd.training.preflight import Checked, reduced_dimension
from mlkd.training.state import Rhythm
from mlkd.training.trainer import Distillation

log = logging.getLogger("mlkd")
EVALUATIONS_PER_RUN = 6
NORM_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before its first step.

    Args:
        distillation: with the untrained student.
        corpus: for its held-out pairs.
        teacher: opens its weights on first use; in fewer dimensions where the run reduces it.
    """

    distillation: Distillation
    corpus: Corpus
    teacher: Encoder


def prepare(
    config: TrainConfig, checked: Checked, run: RunFolder | None, stop: Callable[[], None], *, follows: bool = False
) -> Prepared:
    """Read the corpus, compute what teacher vectors and tokens the cache lacks, and build the student.

    Args:
        config: of the run.
        checked: what preflight found.
        run: gets data.json; None for a dry run.
        stop: called between long pieces of work; raises when the run must end.
        follows: another process of the run has prepared it already: the cache holds everything.

    Raises:
        MlkdError: E3xx for the text, E4xx for models, E319 where the text changed since the run was started.
    """
    corpus = config.data.load()
    for line in corpus.report.lines():
        log.info("%s", line)
    if run is not None:
        record_data(run, corpus.report)
    report_overlap(config, checked, corpus)
    pairs = TrainingPairs.from_corpus(corpus.train)
    teacher = LazyTeacher(lambda: config.teacher.load(config.hardware, checked.device))
    targets, positions = compute_targets(config, checked, pairs, teacher, None if follows else stop)
    sample = targets.rows(positions[: min(pairs.num_sources, NORM_SAMPLE)])
    held_out = sorted({text for pair in corpus.dev for side in (pair.source, pair.target) for text in side})
    material = StudentCorpus(pairs, Path(config.cache_dir), held_out)
    student = build_student(config, checked, material, normalize=unit_norm(sample), teacher_dimension=targets.dimension)
    stop()
    distillation = build_distillation(config, checked, pairs, (targets, positions), student)
    judged = teacher if targets.reduction is None else ReducedTeacher(teacher, targets.reduction)
    return Prepared(distillation, corpus, judged)


def record_data(run: RunFolder, report: DataReport) -> None:
    """Write data.json, or refuse text that is not what the run was started with."""
    path = run.path / "data.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            name
            for name, language in report.languages.items()
            if before["languages"].get(name, {}).get("fingerprint") != language.fingerprint
        ]
        if changed:
            raise fail(
                "E319",
                f"the training text changed since this run was started ({', '.join(changed)})",
                where=str(run.path),
                remedy="restore the files, or set resume=false for a new run",
            )
    write_json(path, report.as_json())


def report_overlap(config: TrainConfig, checked: Checked, corpus: Corpus) -> None:
    """Warn of evaluation sentences that stand in the training text."""
    if config.task:
        evaluation_overlap(corpus.train, checked.evaluations.texts())


def compute_targets(
    config: TrainConfig, checked: Checked, pairs: TrainingPairs, teacher: LazyTeacher, stop: Callable[[], None] | None
) -> tuple[TeacherTargets, Positions]:
    """Teacher vectors of all sources, and of the translations where the loss asks for them.

    Args:
        config, checked, pairs, teacher: of the run.
        stop: called after each part; None where the cache holds them all, and the teacher need not be opened.

    Returns:
        The targets, reduced where the run asks for it, and each distinct text's position, -1 without a vector.
    """
    precision = autocast_type(config.hardware.teacher_precision, checked.device)
    folder = Path(config.cache_dir) / "teacher" / config.teacher.fingerprint(precision)
    targets = TeacherTargets(folder, teacher)
    wanted = pairs.texts if config.needs_teacher_target else pairs.texts[: pairs.num_sources]

    def progress(done: int, total: int) -> None:
        log.info("teacher: %s of %s texts encoded", f"{done:,}", f"{total:,}")
        if stop is not None:
            stop()

    positions = np.full(len(pairs.texts), -1, dtype=np.int64)
    positions[: len(wanted)] = targets.store.positions(wanted) if stop is None else targets.ensure(wanted, progress)
    dimension = reduced_dimension(config, targets.dimension)
    if dimension is not None:
        targets.reduction = config.teacher.reduction.open_or_fit(
            folder, Taught(pairs, targets.store, positions), dimension
        )
    return targets, positions


def build_student(
    config: TrainConfig, checked: Checked, corpus: StudentCorpus, *, normalize: bool, teacher_dimension: int
) -> SentenceEncoder:
    """The untrained student on its device, in training mode; with a pre-projection layer where the loss needs one."""
    student = config.student.build(corpus, normalize=normalize, seed=config.seed)
    if config.loss.needs_pre_projection:
        student.add_pre_projection(teacher_dimension, replaces_last=config.student.dense_dim is not None)
    place(student.body, checked.device, autocast_type(config.hardware.precision, checked.device))
    student.to(checked.device)
    student.encode_tokens = config.hardware.forward_tokens(checked.device)
    if config.hardware.compile:
        student.body.compile(dynamic=True)
    student.train()
    return student


def build_distillation(
    config: TrainConfig,
    checked: Checked,
    pairs: TrainingPairs,
    taught: tuple[TeacherTargets, Positions],
    student: SentenceEncoder,
) -> Distillation:
    """Tokenise what the cache lacks, and put loss, optimiser and order of batches beside the student."""
    targets, positions = taught
    device = checked.device
    tokenizer_key = fingerprint([student.tokenizer.backend_tokenizer.to_str(), str(student.text)])
    tokens = TokenStore.open_or_build(Path(config.cache_dir), pairs.texts, student.tokenize, tokenizer_key)
    batches = Batches(pairs.language_sizes, config.optim.batch_size, config.data.language_temperature, config.seed)
    smallest = batches.num_pairs // batches.num_batches
    if config.hardware.processes > smallest:
        what = f"must be at most {smallest}, the pairs of a batch of this text (got {config.hardware.processes})"
        raise fail("E204", what, where="hardware.processes")
    total_steps = config.optim.total_steps(batches.num_batches)
    evaluate_every = config.evaluation.every_steps or math.ceil(total_steps / EVALUATIONS_PER_RUN)
    return Distillation(
        student,
        config.loss.build(student.dimension, targets.dimension).to(device),
        TrainingData(pairs, tokens, targets, positions, batches, mine_negatives(config, pairs, taught)),
        config.optim,
        Rhythm(
            total_steps=total_steps,
            log_every=config.log_every_steps,
            evaluate_every=evaluate_every,
            checkpoint_every=config.checkpoint.every_steps or evaluate_every,
            patience=config.evaluation.patience,
        ),
        precision=autocast_type(config.hardware.precision, device),
        max_tokens=config.hardware.forward_tokens(device),
        caching=config.hardware.gradient_caching,
        masked_lm=build_masked_lm(config, student),
    )


def mine_negatives(
    config: TrainConfig, pairs: TrainingPairs, taught: tuple[TeacherTargets, Positions]
) -> Indices | None:
    """Hard negatives of each pair, from the cache where they are there; None where the loss asks for none."""
    number = config.loss.num_hard_negatives
    if not number:
        return None
    targets, positions = taught
    folder = targets.store.folder
    known = TeacherKnowledge(
        pairs,
        lambda texts: targets.store.rows(positions[texts]),
        reads_target=config.loss.needs_teacher_target,
        key=folder.name,
    )
    return config.negatives.open_or_mine(Path(config.cache_dir), known, number)


def build_masked_lm(config: TrainConfig, student: SentenceEncoder) -> MaskedLm | None:
    """The masked language model beside the mix, on the student's device; None where it has no weight."""
    if not config.loss.delta:
        return None
    embedding: Any = student.body.get_input_embeddings()  # type: ignore[operator]
    sizes = {"num_pieces": embedding.num_embeddings, "embedding_dim": embedding.embedding_dim}
    return MaskedLm(config.loss.masked_lm, student, **sizes, seed=config.seed).to(student.device)
