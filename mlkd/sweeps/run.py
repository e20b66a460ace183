"""A sweep: jobs whose failure ends nothing, a folder that the same command continues, one table at the end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mlkd.config.fingerprint import NOT_IN_FINGERPRINT, deciding_values
from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.errors import MlkdError, fail
from mlkd.report.results import ScoreKey
from mlkd.runtime.atomic_files import write_json, write_text
from mlkd.runtime.hashing import fingerprint
from mlkd.runtime.lock import is_held
from mlkd.runtime.run_folder import RunFolder, RunState, Status, find_unfinished, new_run_path
from mlkd.sweeps.hpo import Choice, Interval
from mlkd.sweeps.job import JOB_FILE, read_job, scores
from mlkd.sweeps.table import SweepJob, SweepTable, print_table, to_csv, to_markdown, to_record

# What Hydra quotes, which it leaves as it is, or one character that it escapes.
ESCAPED = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|\\([\\()\[\]{}:=, \t])""")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the same command names again.

    Args:
        parent: of the folders of sweeps.
        fingerprint: of the configuration and of what is swept.
        folder: the user's own; None for one under `parent`.
        planned: the overrides of every job in order; empty where a sweeper decides as it goes.
        resume: continue an earlier sweep of this fingerprint.
        dry_run: jobs take one step and leave nothing behind.
        hpo: how values in `space` are chosen.
        space: what is searched; empty for a sweep of all combinations.
        constant: overrides that a searched option brings beside its space; each job takes them.
    """

    parent: Path
    fingerprint: str
    folder: Path | None
    planned: list[list[str]]
    resume: bool
    dry_run: bool
    hpo: HyperParameterSearch
    space: dict[str, Interval | Choice]
    constant: list[str] = field(default_factory=list)


def sweep_fingerprint(first_job: str, overrides: Sequence[str]) -> str:
    """Names a sweep by the configuration (YAML) of its first job and by the command's overrides, in order."""
    values = deciding_values(first_job)
    ignored = {*NOT_IN_FINGERPRINT} - {"hpo.seed", "hpo.startup_trials"}
    kept = [text for text in overrides if override_key(text) not in ignored]
    kept = [text for text in kept if not re.match(r"hydra[./]launcher|hydra\.sweep\.dir", override_key(text))]
    return fingerprint([*kept, *(f"{key}={values[key]!r}" for key in sorted(values))])


def override_key(text: str) -> str:
    """
    >>> override_key("+experiment=labse_ams"), override_key("~task.mse")
    ('experiment', '~task.mse')
    """
    return text.partition("=")[0].lstrip("+")


def run_sweep(sweep: Sweep, launch: Callable[[Path], None]) -> SweepTable:
    """Run or continue a sweep; its table is printed and written however it ends.

    Args:
        sweep: which.
        launch: runs all jobs, each by `run_job`, in folders below the one it is given.

    Raises:
        MlkdError: E101 where a job failed; whatever `launch` raises.
        KeyboardInterrupt: what ended a job, once that is saved.
    """
    folder = open_folder(sweep)
    run = RunFolder(folder)
    with run.lock():
        state, error = RunState.failed, None
        run.write_status(Status(state=RunState.running, fingerprint=sweep.fingerprint))
        try:
            launch(folder)
            state = RunState.finished
        except KeyboardInterrupt as interrupt:
            state, error = RunState.interrupted, str(interrupt)
            raise
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            table = SweepTable.build(collect(folder, sweep.planned))
            unfinished = [job for job in table.jobs if job.state != RunState.finished]
            if unfinished and state is RunState.finished:
                state = RunState.failed
            done = len(table.jobs) - len(unfinished)
            status = Status(
                state=state, step=done, max_steps=len(table.jobs), error=error, fingerprint=sweep.fingerprint
            )
            run.write_status(status)
            write_table(folder, table)
    if failed := [job.name for job in table.jobs if job.state == RunState.failed]:
        what = f"{len(failed)} of {len(table.jobs)} jobs failed: {', '.join(failed)}"
        raise fail("E101", what, remedy="the same command skips what is finished and does these again")
    return table


def open_folder(sweep: Sweep) -> Path:
    """The folder of the latest sweep of this fingerprint, or a new one."""
    if sweep.folder is not None:
        return sweep.folder
    found = find_unfinished(sweep.parent, sweep.fingerprint, or_finished=True) if sweep.resume else None
    if found is None:
        return new_run_path(sweep.parent, datetime.now())
    print(f"continuing the sweep {found} (resume=false starts anew)", file=sys.stderr)
    return found


def collect(folder: Path, planned: Sequence[Sequence[str]]) -> list[SweepJob]:
    """Every job under `folder` as its files tell, whichever process ran it, and those planned that have none yet."""
    found = {path.parent: read_job(path.parent) for path in folder.rglob(JOB_FILE)}
    jobs = [describe_job(path, folder, record) for path, record in found.items()]
    begun = [job.overrides for job in jobs]
    waiting = [(number, as_pairs(texts)) for number, texts in enumerate(planned) if as_pairs(texts) not in begun]
    jobs += [SweepJob(str(number), overrides, "waiting") for number, overrides in waiting]
    return sorted(jobs, key=lambda job: [(part.isdigit() and int(part), part) for part in re.split(r"(\d+)", job.name)])


def describe_job(path: Path, folder: Path, record: dict[str, Any]) -> SweepJob:
    """One job from its folder."""
    run = RunFolder(path)
    status = run.read_status()
    state = status.state.value if status is not None else "killed"
    if state == RunState.running and not is_held(run.lock_file):
        state = "killed"
    error = status.error or "" if status is not None and state == RunState.failed else ""
    found: dict[ScoreKey, float | None] = {}
    if state == RunState.finished:
        try:
            found = scores(run)
        except MlkdError as damage:  # one damaged file must not cost the table
            error = str(damage)
    return SweepJob(
        name=str(path.relative_to(folder)),
        overrides=as_pairs(record.get("overrides", [])),
        state=state,
        scores=found,
        seconds=record.get("seconds"),
        error=error,
        objective=record.get("objective"),
    )


def as_pairs(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides by key, values as people type them.

    >>> as_pairs(["+experiment=labse_ams", "seed=2", "~task.mse"])
    {'experiment': 'labse_ams', 'seed': '2', '~task.mse': ''}
    """
    return {override_key(text): unescape(text.partition("=")[2]) for text in overrides}


def unescape(value: str) -> str:
    r"""A value without the backslashes that Hydra puts before special characters outside quotes.

    >>> unescape(r"package\:gte_small"), unescape(r"['a\:b', c\=d]")
    ('package:gte_small', "['a\\:b', c=d]")
    """
    return ESCAPED.sub(lambda found: found[1] or found[2], value)


def write_table(folder: Path, table: SweepTable) -> None:
    """sweep.md, sweep.csv and sweep.json in `folder`, the table on the terminal."""
    write_text(folder / "sweep.md", to_markdown(table))
    write_text(folder / "sweep.csv", to_csv(table))
    write_json(folder / "sweep.json", to_record(table))
    print_table(table)
    print(f"\nsweep: {folder / 'sweep.md'}")
