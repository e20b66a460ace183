"""One training run: configuration in, trained student, scores and report out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from mlkd.conclude import PICTURE_FILE, conclude, model_card, save_picture_vectors
from mlkd.config import TrainConfig, as_flat_dict, as_yaml
from mlkd.data.report import fingerprint
from mlkd.errors import fail
from mlkd.evaluations import BestMetric, Evaluations, as_metrics, read_task_results, write_task_results
from mlkd.follow import Start, Team
from mlkd.models.folder import save_encoder
from mlkd.preflight import check_run
from mlkd.prepare import Prepared, prepare
from mlkd.runtime.checkpoints import Checkpoint, CheckpointWriter, load_latest
from mlkd.runtime.interrupts import Interrupts
from mlkd.runtime.progress import SHOWN_BY_BAR
from mlkd.runtime.run_folder import RunFolder, RunState, Status, write_text
from mlkd.runtime.run_log import RunLog
from mlkd.search import Search
from mlkd.standing import Standing
from mlkd.tasks.base import TaskResult

log = logging.getLogger("mlkd")
_SEARCH = tuple(f"search.{field.name}" for field in fields(Search))
NOT_IN_FINGERPRINT = (
    "dry_run",
    "resume",
    "output_dir",
    "cache_dir",
    "hardware.gradient_caching",
    "hardware.processes",
    *_SEARCH,
)


class RunInterruptedError(KeyboardInterrupt):
    """A signal ended the run after it was saved; a KeyboardInterrupt, so that a sweep ends with it."""

    def __init__(self, signal_name: str, exit_code: int) -> None:
        super().__init__(f"{signal_name}: saved; the same command continues")
        self.exit_code = exit_code


class InterruptedAfterwardsError(KeyboardInterrupt):
    """A signal came when a run had only its report to write, which is written: it ends a sweep, not the run."""

    def __init__(self, signal_name: str, exit_code: int) -> None:
        super().__init__(f"{signal_name}: the run is finished")
        self.exit_code = exit_code


def deciding_values(yaml: str) -> dict[str, object]:
    """The flat configuration without what cannot change a run's result."""
    return {key: value for key, value in as_flat_dict(yaml).items() if key not in NOT_IN_FINGERPRINT}


def config_fingerprint(config: TrainConfig) -> str:
    """Names everything in a configuration that decides the run's result."""
    values = deciding_values(as_yaml(config))
    types = [type(config.student).__name__, type(config.data).__name__, type(config.loss.ranking).__name__]
    return fingerprint([*types, *(f"{key}={values[key]!r}" for key in sorted(values))])


def train(config: TrainConfig, folder: Path, overrides: Sequence[str] = ()) -> Path:
    """Train, evaluate and report; continue where a run of the same configuration in `folder` stopped.

    Args:
        config: checked by its own construction.
        folder: the run folder.
        overrides: the command's overrides, for the record.

    Returns:
        The run folder.

    Raises:
        MlkdError: see `mlkd.errors`.
        RunInterruptedError: after a signal, once the state is saved.
        InterruptedAfterwardsError: after a signal, with the run finished.
    """
    checked = check_run(config)
    run = RunFolder(folder)
    name = config_fingerprint(config)
    with run.lock(), Interrupts() as interrupts:
        status = run.read_status()
        if status is not None and status.state is RunState.finished and status.fingerprint == name:
            log.warning("%s is finished already; resume=false starts a new run", folder)
            return folder
        refuse_other_config(run, config)
        writer = CheckpointWriter(run.checkpoints, keep=config.checkpoint.keep)
        checkpoint = load_latest(run.checkpoints)
        with RunLog(folder, 0, resume_step=checkpoint.step if checkpoint else None) as run_log:
            state, error, step = RunState.failed, None, checkpoint.step if checkpoint else 0
            try:
                run.write_status(Status(state=RunState.running, step=step, fingerprint=name))
                write_text(run.config, as_yaml(config))
                write_text(run.overrides, "".join(f"- {o!r}\n" for o in overrides) or "[]\n")
                run.write_environment(str(checked.device))
                prepared = prepare(config, checked, run, lambda: stop_if_asked(interrupts))
                session = Session(config, prepared, checked.evaluations, run, run_log)
                start = Start(config, checked.device.type, torch.get_num_threads(), run.checkpoints, step or None)
                with Team(start, prepared.distillation) as team:
                    session.begin(checkpoint)
                    team.join(lambda: stop_if_asked(interrupts))
                    prepared.distillation.train(run_log, session.evaluate, writer, interrupts)
                step = prepared.distillation.standing.step
                stop_if_asked(interrupts)
                conclude(config, checked, prepared, run, lambda: stop_if_asked(interrupts))
                state = RunState.finished
            except KeyboardInterrupt as interrupt:
                state, error = RunState.interrupted, str(interrupt)
                log.warning("%s", interrupt)
                raise
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
                log.error("%s", problem, extra={SHOWN_BY_BAR: True})  # into train.log; the terminal is told once
                raise
            finally:
                run.write_status(Status(state=state, step=step, error=error, fingerprint=name))
                interrupts.call_previous()
        if interrupts.requested is not None:
            raise InterruptedAfterwardsError(interrupts.requested, interrupts.exit_code)
    return folder


def stop_if_asked(interrupts: Interrupts) -> None:
    """Raise RunInterruptedError after a signal."""
    if interrupts.requested is not None:
        raise RunInterruptedError(interrupts.requested, interrupts.exit_code)


@dataclass(slots=True)
class Session:
    """What a run evaluates by, and where it keeps its best student."""

    config: TrainConfig
    prepared: Prepared
    evaluations: Evaluations
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


def score_untrained(prepared: Prepared, evaluations: Evaluations, run: RunFolder) -> list[TaskResult]:
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


def refuse_other_config(run: RunFolder, config: TrainConfig) -> None:
    """E412 where `run` was started with other values, naming them; a folder without a config is free."""
    if not run.config.is_file():
        return
    before, now = deciding_values(run.config.read_text(encoding="utf-8")), deciding_values(as_yaml(config))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        shown = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in changed[:8])
        raise fail(
            "E412",
            f"was started with another configuration ({shown})",
            where=str(run.path),
            remedy="give the same values, or another folder",
        )
