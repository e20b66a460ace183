"""One training run: configuration in, trained student, scores and report out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mlkd.config.composition import as_yaml
from mlkd.config.fingerprint import config_fingerprint, deciding_values
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import fail
from mlkd.runtime.atomic_files import write_text
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest
from mlkd.runtime.log import RunLog
from mlkd.runtime.progress import SHOWN_BY_BAR
from mlkd.runtime.run_folder import RunFolder, RunState, Status
from mlkd.runtime.signals import Interrupts
from mlkd.training.evaluation_callback import EvaluationCallback
from mlkd.training.finalize import finalize
from mlkd.training.model_card import ModelCard
from mlkd.training.preflight import run_preflight
from mlkd.training.setup import set_up
from mlkd.training.trainer import Trainer
from mlkd.training.workers import WorkerGroup, WorkerStart

log = logging.getLogger("mlkd")


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
    preflight = run_preflight(config)
    run = RunFolder(folder)
    name = config_fingerprint(config)
    with run.lock(), Interrupts() as interrupts:
        status = run.read_status()
        if status is not None and status.state is RunState.finished and status.fingerprint == name:
            log.warning("%s is finished already; resume=false starts a new run", folder)
            return folder
        refuse_other_config(run, as_yaml(config))
        writer = CheckpointWriter(run.checkpoints, keep=config.checkpoint.keep)
        checkpoint = load_latest(run.checkpoints)
        with RunLog(folder, 0, resume_step=checkpoint.step if checkpoint else None) as run_log:
            state, error, step = RunState.failed, None, checkpoint.step if checkpoint else 0
            try:
                run.write_status(Status(state=RunState.running, step=step, fingerprint=name))
                write_text(run.config, as_yaml(config))
                write_text(run.overrides, "".join(f"- {o!r}\n" for o in overrides) or "[]\n")
                run.write_environment(str(preflight.device))
                setup = set_up(config, preflight, run, lambda: stop_if_asked(interrupts))
                callback = EvaluationCallback(
                    setup, preflight.evaluations, config.evaluation.metric, run, run_log, card_of(config, setup.trainer)
                )
                start = WorkerStart.of(config, preflight, run.checkpoints, step or None)
                with WorkerGroup(start, setup.trainer) as workers:
                    callback.begin(checkpoint)
                    workers.join(lambda: stop_if_asked(interrupts))
                    setup.trainer.train(run_log, callback.evaluate, writer, interrupts)
                step = setup.trainer.state.step
                stop_if_asked(interrupts)
                finalize(config.teacher.model, preflight, setup, run, lambda: stop_if_asked(interrupts))
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


def card_of(config: TrainConfig, trainer: Trainer) -> ModelCard:
    """The model card of a run's student."""
    return ModelCard(
        name=config.name,
        teacher=config.teacher.model,
        languages=[config.data.source_language, *config.data.languages],
        dimension=trainer.student.dimension,
        num_pairs=trainer.data.pairs.source.size,
        total_steps=trainer.intervals.total_steps,
    )


def stop_if_asked(interrupts: Interrupts) -> None:
    """Raise RunInterruptedError after a signal."""
    if interrupts.requested is not None:
        raise RunInterruptedError(interrupts.requested, interrupts.exit_code)


def refuse_other_config(run: RunFolder, yaml: str) -> None:
    """E412 where `run` was started with other values, naming them; a folder without a config is free."""
    if not run.config.is_file():
        return
    before, now = deciding_values(run.config.read_text(encoding="utf-8")), deciding_values(yaml)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        shown = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in changed[:8])
        raise fail(
            "E412",
            f"was started with another configuration ({shown})",
            where=str(run.path),
            remedy="give the same values, or another folder",
        )
