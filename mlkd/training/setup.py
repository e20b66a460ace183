"""Training setup: from a checked configuration to text, teacher targets, tokens, student and trainer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config.train_schema import Checkpointing, Evaluation, TrainConfig
from mlkd.data.batches import Batches
from mlkd.data.corpora.base import Corpus
from mlkd.data.overlap import evaluation_overlap
from mlkd.data.report import DataReport
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import fail
from mlkd.losses.mix import LossMix
from mlkd.models.encoder import Encoder
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.spec import LazyEncoder
from mlkd.models.students.base import StudentCorpus
from mlkd.runtime.atomic_files import write_json
from mlkd.runtime.devices import place
from mlkd.runtime.hashing import fingerprint
from mlkd.runtime.run_folder import RunFolder
from mlkd.teacher.encoder import Teacher
from mlkd.teacher.hard_negatives import NegativeMiningPairs
from mlkd.teacher.reduction import ReducedTeacher, TaughtPairs
from mlkd.teacher.targets import TeacherTargets
from mlkd.teacher.vector_store import Positions, unit_norm
from mlkd.training.dataloader import TrainingData
from mlkd.training.gradient import TrainerArguments
from mlkd.training.preflight import PreflightResult
from mlkd.training.state import Intervals
from mlkd.training.trainer import Trainer

log = logging.getLogger("mlkd")
EVALUATIONS_PER_RUN = 6
NORM_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Everything a run needs to take its first step.

    Args:
        trainer: with the untrained student.
        corpus: for its held-out pairs.
        teacher: opens its weights on first use; in fewer dimensions where the run reduces it.
    """

    trainer: Trainer
    corpus: Corpus
    teacher: Encoder


def set_up(
    config: TrainConfig,
    preflight: PreflightResult,
    run: RunFolder | None = None,
    stop: Callable[[], None] = lambda: None,
    *,
    cache_is_filled: bool = False,
) -> TrainingSetup:
    """Read the corpus, compute what teacher vectors and tokens the cache lacks, and build student and trainer.

    Args:
        config: of the run.
        preflight: what was resolved for it.
        run: gets data.json; None for a dry run.
        stop: called between long pieces of work; raises when the run must end.
        cache_is_filled: another process of the run has filled the cache: the teacher is never opened.

    Raises:
        MlkdError: E3xx for the text, E4xx for models, E319 where the text changed since the run was started.
    """
    corpus = config.data.load()
    for line in corpus.report.lines():
        log.info("%s", line)
    if run is not None:
        record_data(run, corpus.report)
    if config.task:
        evaluation_overlap(corpus.train, preflight.evaluations.texts())
    pairs = TrainingPairs.from_corpus(corpus.train)
    cache_dir = Path(config.cache_dir)
    teacher = LazyEncoder(lambda: open_teacher(config.teacher, preflight))
    key = config.teacher.fingerprint(preflight.teacher.sha256, preflight.teacher_precision)
    targets = TeacherTargets(cache_dir / "teacher" / key, teacher)
    wanted = pairs.texts if config.needs_teacher_target else pairs.texts[: pairs.num_sources]
    positions = compute_targets(targets, pairs, wanted, stop, cache_is_filled=cache_is_filled)
    if preflight.teacher.reduced_dimension is not None:
        taught = TaughtPairs(pairs, targets.store, positions)
        reduction = config.teacher.reduction
        targets.reduction = reduction.open_or_fit(targets.store.folder, taught, preflight.teacher.reduced_dimension)
    sample = targets.rows(positions[: min(pairs.num_sources, NORM_SAMPLE)])
    held_out = sorted({text for pair in corpus.dev for side in (pair.source, pair.target) for text in side})
    student = config.student.build(
        StudentCorpus(pairs, cache_dir, held_out), normalize=unit_norm(sample), seed=config.seed
    )
    if config.loss.needs_pre_projection:
        student.add_pre_projection(targets.dimension, replaces_last=config.student.dense_dim is not None)
    place_student(student, preflight, is_compiled=config.hardware.compile)
    stop()
    trainer = build_trainer(config, preflight, pairs, (targets, positions), student)
    judged = teacher if targets.reduction is None else ReducedTeacher(teacher, targets.reduction)
    return TrainingSetup(trainer, corpus, judged)


def open_teacher(teacher: Teacher, preflight: PreflightResult) -> SentenceEncoder:
    """The teacher's weights, on the device of the run."""
    found = preflight.teacher.folder
    return teacher.load_on(preflight.device, preflight.teacher_precision, preflight.max_tokens, found)


def record_data(run: RunFolder, report: DataReport) -> None:
    """Write data.json, or refuse text that is not what the run was trained on so far."""
    path = run.path / "data.json"
    # Before its first checkpoint nothing is at stake: text may have been mended because it could not be trained on.
    if path.is_file() and any(run.checkpoints.glob("step-*")):
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


def compute_targets(
    targets: TeacherTargets,
    pairs: TrainingPairs,
    wanted: Sequence[str],
    stop: Callable[[], None],
    *,
    cache_is_filled: bool,
) -> Positions:
    """Fill the cache with the teacher vectors of `wanted`.

    Args:
        targets: of the teacher; its store is the cache.
        pairs: of the run.
        wanted: its sources, or all its texts, which begin with the sources.
        stop: called after each part.
        cache_is_filled: look the vectors up, and never open the teacher.

    Returns:
        Each distinct text's position in the cache, -1 without a vector.
    """

    def progress(done: int, total: int) -> None:
        log.info("teacher: %s of %s texts encoded", f"{done:,}", f"{total:,}")
        stop()

    found = targets.store.positions(wanted) if cache_is_filled else targets.ensure(wanted, progress)
    positions = np.full(len(pairs.texts), -1, dtype=np.int64)
    positions[: len(wanted)] = found
    return positions


def place_student(student: SentenceEncoder, preflight: PreflightResult, *, is_compiled: bool) -> None:
    """Put the untrained student on the device of the run, in training mode."""
    place(student.backbone, preflight.device, preflight.precision)
    student.to(preflight.device)
    student.encode_tokens = preflight.max_tokens
    if is_compiled:
        student.backbone.compile(dynamic=True)
    student.train()


def build_trainer(
    config: TrainConfig,
    preflight: PreflightResult,
    pairs: TrainingPairs,
    taught: tuple[TeacherTargets, Positions],
    student: SentenceEncoder,
) -> Trainer:
    """Tokenise what the cache lacks, and put loss, optimiser and order of batches beside the student."""
    targets, positions = taught
    tokenizer_key = fingerprint([student.tokenizer.backend_tokenizer.to_str(), str(student.text)])
    tokens = TokenStore.open_or_build(Path(config.cache_dir), pairs.texts, student.tokenize, tokenizer_key)
    batches = Batches(pairs.language_sizes, config.optim.batch_size, config.data.language_temperature, config.seed)
    check_batch_size(batches, config.hardware.num_processes)
    negatives = None
    if config.loss.num_hard_negatives:
        known = NegativeMiningPairs(
            pairs,
            lambda texts: targets.store.rows(positions[texts]),
            reads_target=config.loss.needs_teacher_target,
            key=targets.store.folder.name,
        )
        negatives = config.negatives.open_or_mine(Path(config.cache_dir), known, config.loss.num_hard_negatives)
    return Trainer(
        TrainerArguments(
            student=student,
            loss=config.loss.build(student.dimension, targets.dimension).to(preflight.device),
            data=TrainingData(pairs, tokens, targets, positions, batches, negatives),
            optim=config.optim,
            intervals=choose_intervals(
                config.optim.total_steps(batches.num_batches),
                config.evaluation,
                config.checkpoint,
                log_every=config.log_every_steps,
            ),
            precision=preflight.precision,
            max_tokens=preflight.max_tokens,
            caching=config.hardware.gradient_caching,
            masked_lm=build_masked_lm(config.loss, student, config.seed),
        )
    )


def check_batch_size(batches: Batches, num_processes: int) -> None:
    """E204 where a batch of this text has fewer pairs than there are processes."""
    smallest = batches.num_pairs // batches.num_batches
    if num_processes > smallest:
        what = f"must be at most {smallest}, the pairs of a batch of this text (got {num_processes})"
        raise fail("E204", what, where="hardware.num_processes")


def choose_intervals(
    total_steps: int, evaluation: Evaluation, checkpoint: Checkpointing, *, log_every: int
) -> Intervals:
    """When the run logs, evaluates and saves; an evaluation six times a run where nothing else is asked for."""
    evaluate_every = evaluation.every_steps or math.ceil(total_steps / EVALUATIONS_PER_RUN)
    return Intervals(
        total_steps=total_steps,
        log_every=log_every,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint.every_steps or evaluate_every,
        patience=evaluation.patience,
    )


def build_masked_lm(loss: LossMix, student: SentenceEncoder, seed: int) -> MaskedLm | None:
    """The masked language model beside the mix, on the student's device; None where it has no weight."""
    if not loss.delta:
        return None
    embedding: Any = student.backbone.get_input_embeddings()  # type: ignore[operator]
    sizes = {"num_pieces": embedding.num_embeddings, "embedding_dim": embedding.embedding_dim}
    return MaskedLm(loss.masked_lm, student, **sizes, seed=seed).to(student.device)
