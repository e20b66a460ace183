"""The evaluation callback of the training loop: scores the student and keeps the best one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mlkd.evaluation.evaluator import BestMetric, Evaluator, as_metrics, read_task_results, write_task_results
from mlkd.models.serialization import save_encoder
from mlkd.runtime.checkpoints import Checkpoint
from mlkd.runtime.log import RunLog
from mlkd.runtime.run_folder import RunFolder
from mlkd.tasks.scoring.scores import TaskResult
from mlkd.training.finalize import PICTURE_FILE, save_picture_vectors
from mlkd.training.model_card import ModelCard
from mlkd.training.resume import restore_training_state
from mlkd.training.setup import TrainingSetup
from mlkd.training.state import TrainState

log = logging.getLogger("mlkd")


@dataclass(slots=True)
class EvaluationCallback:
    """Scores the student while it trains, and keeps the best one.

    Args:
        setup: the trainer, and the teacher for tasks that compare with it.
        evaluations: what is scored.
        metric: `task/language/metric` that chooses the best student; empty for the first task's main one.
        run: gets the best student.
        run_log: gets the scores.
        card: of the student's folder.
    """

    setup: TrainingSetup
    evaluations: Evaluator
    metric: str
    run: RunFolder
    run_log: RunLog
    card: ModelCard
    best: BestMetric | None = None

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Score the untrained student, then put it where `checkpoint` left it."""
        trainer = self.setup.trainer
        untrained = score_untrained(self.setup, self.evaluations, self.run)
        self.best = BestMetric.find(self.metric, untrained)
        if checkpoint is None:
            self.run_log.log_step(0, as_metrics(untrained), kind="eval")
        else:
            restore_training_state(trainer, checkpoint)
            log.info("continuing after step %d of %s", checkpoint.step, self.run.path)
        self.run_log.total_steps = trainer.intervals.total_steps
        self.run_log.first_step = trainer.state.step

    def evaluate(self, state: TrainState) -> None:
        """Score the student; a new best is saved, and the state records which it is."""
        student = self.setup.trainer.student
        results = self.evaluations.score(student, self.setup.teacher)
        metrics = as_metrics(results)
        self.run_log.log_step(state.step, metrics, kind="eval")
        log.info("step %d: %s", state.step, describe(results))
        value = metrics.get(self.best.key) if self.best is not None else None
        is_best = self.best is None or (value is not None and self.best.improves(value, state.best))
        state.record_evaluation(value, is_best=is_best)
        if is_best:
            save_encoder(student, self.run.student, card=self.card.text(state.step))


def score_untrained(setup: TrainingSetup, evaluations: Evaluator, run: RunFolder) -> list[TaskResult]:
    """Scores of the student before its first step, computed once a run."""
    path = run.eval / "untrained.json"
    if not path.is_file():
        student = setup.trainer.student
        results = evaluations.score(student, setup.teacher)
        log.info("untrained: %s", describe(results))
        path.parent.mkdir(exist_ok=True)
        save_picture_vectors(student, setup, run.eval / PICTURE_FILE)
        write_task_results(path, results)
    return read_task_results(path)


def describe(results: Sequence[TaskResult]) -> str:
    """The main means in one line."""
    found = [
        (r, next((s.value for s in r.scores if (s.language, s.metric) == ("mean", r.main)), None)) for r in results
    ]
    return ", ".join(f"{r.task} {r.main} {'undefined' if v is None else format(v, '.4g')}" for r, v in found)
