"""The evaluation callback of the training loop: scores the student and keeps the best one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mlkd.config.train_schema import TrainConfig
from mlkd.evaluation.evaluator import BestMetric, Evaluator, as_metrics, read_task_results, write_task_results
from mlkd.models.serialization import save_encoder
from mlkd.runtime.checkpoints import Checkpoint
from mlkd.runtime.log import RunLog
from mlkd.runtime.run_folder import RunFolder
from mlkd.tasks.scoring.scores import TaskResult
from mlkd.training.finalize import PICTURE_FILE, model_card, save_picture_vectors
from mlkd.training.setup import Prepared
from mlkd.training.state import Standing

log = logging.getLogger("mlkd")


@dataclass(slots=True)
class Session:
    """What a run evaluates by, and where it keeps its best student."""

    config: TrainConfig
    prepared: Prepared
    evaluations: Evaluator
    run: RunFolder
    run_log: RunLog
    best: BestMetric | None = None

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Score the untrained student, then put it where `checkpoint` left it."""
        distillation = self.prepared.distillation
        untrained = score_untrained(self.prepared, self.evaluations, self.run)
        self.best = BestMetric.find(self.config.evaluation.metric, untrained)
        if checkpoint is None:
            self.run_log.log_step(0, as_metrics(untrained), kind="eval")
        else:
            distillation.restore(checkpoint)
            log.info("continuing after step %d of %s", checkpoint.step, self.run.path)
        self.run_log.total_steps = distillation.rhythm.total_steps
        self.run_log.first_step = distillation.standing.step

    def evaluate(self, standing: Standing) -> bool:
        """Score the student at this standing; a new best is saved. Returns whether it is one."""
        student = self.prepared.distillation.student
        results = self.evaluations.score(student, self.prepared.teacher)
        metrics = as_metrics(results)
        self.run_log.log_step(standing.step, metrics, kind="eval")
        log.info("step %d: %s", standing.step, describe(results))
        value = metrics.get(self.best.key) if self.best is not None else None
        is_best = self.best is None or (value is not None and self.best.improves(value, standing.best))
        if is_best:
            standing.best, standing.best_step = value, standing.step
            save_encoder(student, self.run.student, card=model_card(self.config, self.prepared, standing))
        return is_best


def score_untrained(prepared: Prepared, evaluations: Evaluator, run: RunFolder) -> list[TaskResult]:
    """Scores of the student before its first step, computed once a run."""
    path = run.eval / "untrained.json"
    if not path.is_file():
        student = prepared.distillation.student
        results = evaluations.score(student, prepared.teacher)
        log.info("untrained: %s", describe(results))
        path.parent.mkdir(exist_ok=True)
        save_picture_vectors(student, prepared, run.eval / PICTURE_FILE)
        write_task_results(path, results)
    return read_task_results(path)


def describe(results: Sequence[TaskResult]) -> str:
    """The main means in one line."""
    found = [
        (r, next((s.value for s in r.scores if (s.language, s.metric) == ("mean", r.main)), None)) for r in results
    ]
    return ", ".join(f"{r.task} {r.main} {'undefined' if v is None else format(v, '.4g')}" for r, v in found)
