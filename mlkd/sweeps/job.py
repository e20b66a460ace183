"""Job of a sweep: run, skipped or continued, and what its folder tells of it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlkd.config.fingerprint import config_fingerprint
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.report.results import ScoreKey, read_results
from mlkd.report.tables import MEAN
from mlkd.runtime.atomic_files import write_json
from mlkd.runtime.run_folder import RunFolder, RunState, Status
from mlkd.training.run import train

JOB_FILE = "job.json"
# The folder is another run's, or another process is at work in it: what its status says stays as it is.
NOT_THIS_JOB = ("E412", "E510", "E511")


def run_job(build: Callable[[], TrainConfig], folder: Path, overrides: Sequence[str]) -> float | None:
    """One job of a sweep: skipped where it is finished, continued where it stopped; an error is recorded, not raised.

    Args:
        build: gives its configuration; one that is refused is this job's failure alone.
        folder: of this job.
        overrides: of this job.

    Returns:
        The score that chooses the best student, negative where lower is better; None where there is none.
    """
    run = RunFolder(folder)
    name = ""
    try:
        config = build()
        name = config_fingerprint(config)
        if is_finished(run, name):
            print(f"job {folder.name} is finished already", file=sys.stderr)
        else:
            run.create()
            print(f"job {folder.name}", file=sys.stderr)
            with timed(folder, overrides):
                train(config, folder, overrides)
        value = objective(run, config.evaluation.metric)
        write_json(folder / JOB_FILE, read_job(folder) | {"objective": value})
        return value
    except Exception as error:
        record_failure(run, error, name, overrides)
        return None


def is_finished(run: RunFolder, name: str) -> bool:
    """Whether `run` finished with the configuration of this fingerprint."""
    status = run.read_status()
    return status is not None and status.state is RunState.finished and status.fingerprint == name


@contextlib.contextmanager
def timed(folder: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Keep what a job is and how long all attempts at it took, in job.json."""
    before_s = read_job(folder).get("seconds")
    write_json(folder / JOB_FILE, {"overrides": list(overrides), "seconds": before_s})
    start = time.monotonic()
    try:
        yield
    finally:
        seconds = (before_s or 0.0) + time.monotonic() - start
        write_json(folder / JOB_FILE, {"overrides": list(overrides), "seconds": seconds})


def read_job(folder: Path) -> dict[str, Any]:
    """What `timed` wrote; empty where there is nothing."""
    try:
        found: dict[str, Any] = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def record_failure(run: RunFolder, error: Exception, name: str, overrides: Sequence[str]) -> None:
    """Tell what ended a job, and write it into its status unless the folder is not this job's to write."""
    if isinstance(error, MlkdError):
        print(error, file=sys.stderr)
        if error.problems[0].code in NOT_THIS_JOB:
            return
    else:
        traceback.print_exception(error)
    if not (run.path / JOB_FILE).is_file():
        write_json(run.path / JOB_FILE, {"overrides": list(overrides), "seconds": None})
    before = run.read_status()
    step = before.step if before is not None else 0
    told = str(error) if isinstance(error, MlkdError) else f"{type(error).__name__}: {error}"
    run.write_status(Status(state=RunState.failed, step=step, error=told, fingerprint=name))


def objective(run: RunFolder, metric: str) -> float | None:
    """The trained student's score by `metric` (task/language/metric; empty for the first task's mean), up is better."""
    for key, value in scores(run, means_only=not metric).items():
        if not metric or f"{key.task}/{key.language}/{key.metric}" == metric:
            return value if value is None or key.higher_is_better else -value
    return None


def scores(run: RunFolder, *, means_only: bool = True) -> dict[ScoreKey, float | None]:
    """The main metrics of the trained student; empty where there are no results."""
    if not run.results_json.is_file():
        return {}
    rows = read_results(run.results_json).rows()
    return {
        key: values["student"]
        for key, values in rows.items()
        if key.main and "student" in values and (key.language == MEAN or not means_only)
    }
