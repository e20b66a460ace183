"""Table of a sweep: what each job changed, what it reached, mean and standard deviation over seeds."""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from mlkd.report.results import ScoreKey
from mlkd.report.tables import MEAN, NOT_SCORED, UNDEFINED, format_value, metric_name

FORMAT = 1
SEED = "seed"
SPREAD = "sd"


@dataclass(frozen=True, slots=True)
class SweepJob:
    """One job of a sweep.

    Args:
        name: of its folder in the sweep's.
        overrides: key -> value as the user wrote it, those that all jobs share too.
        state: finished, failed, interrupted, killed, running or waiting.
        scores: means of the main metrics of the trained student; None is an undefined score.
        seconds: of work, all attempts together; None before the first one ended.
        error: why it failed.
        objective: the score that chooses the best student, up is better; None where there is none.
    """

    name: str
    overrides: dict[str, str]
    state: str
    scores: dict[ScoreKey, float | None] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""
    objective: float | None = None


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Finished jobs that differ in their seed only: mean and sample standard deviation, None where one is undefined."""

    overrides: dict[str, str]
    jobs: list[SweepJob]
    mean: dict[ScoreKey, float | None]
    sd: dict[ScoreKey, float | None]


@dataclass(frozen=True, slots=True)
class SweepTable:
    """All jobs in the order of the sweep, the keys in which they differ, and what was scored."""

    jobs: list[SweepJob]
    keys: list[str]
    columns: list[ScoreKey]
    groups: list[SeedGroup]

    @classmethod
    def build(cls, jobs: Sequence[SweepJob]) -> SweepTable:
        """Compare `jobs`."""
        keys = differing_keys(jobs)
        columns = list(dict.fromkeys(key for job in jobs for key in job.scores))
        return cls(list(jobs), keys, columns, group_seeds(jobs, keys, columns))

    @property
    def title(self) -> str:
        """E.g. `3 jobs: 2 finished, 1 failed`."""
        states = Counter(job.state for job in self.jobs)
        return f"{len(self.jobs)} jobs: " + ", ".join(f"{n} {state}" for state, n in states.items())

    @property
    def errors(self) -> dict[str, list[SweepJob]]:
        """Jobs by what ended them."""
        found: dict[str, list[SweepJob]] = {}
        for job in self.jobs:
            if job.error:
                found.setdefault(job.error, []).append(job)
        return found

    @property
    def best(self) -> str:
        """A line that names the finished job of the highest objective.

        Empty where fewer than two have one, and where seeds are averaged: one seed's luck is no finding.
        """
        scored = [(job.objective, job) for job in self.jobs if job.state == "finished" and job.objective is not None]
        if len(scored) < 2 or self.groups:
            return ""
        _, job = max(scored, key=lambda pair: pair[0])
        changed = " ".join(f"{key}={job.overrides[key]}" for key in self.keys if key in job.overrides)
        return f"best by the score that chooses students (evaluation.metric): job {job.name} ({changed})"


def differing_keys(jobs: Sequence[SweepJob]) -> list[str]:
    """Keys that not all jobs give the same value, in order of first appearance."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def group_seeds(jobs: Sequence[SweepJob], keys: Sequence[str], columns: Sequence[ScoreKey]) -> list[SeedGroup]:
    """Groups of at least two finished jobs that differ in nothing but the seed."""
    found: dict[tuple[tuple[str, str], ...], list[SweepJob]] = {}
    for job in jobs:
        if job.state == "finished":
            shared = tuple((key, job.overrides[key]) for key in keys if key != SEED and key in job.overrides)
            found.setdefault(shared, []).append(job)
    return [
        SeedGroup(
            dict(shared),
            members,
            {column: _over(statistics.fmean, members, column) for column in columns},
            {column: _over(statistics.stdev, members, column) for column in columns},
        )
        for shared, members in found.items()
        if len(members) > 1
    ]


def _over(statistic: Any, jobs: Sequence[SweepJob], column: ScoreKey) -> float | None:
    values = [job.scores.get(column) for job in jobs]
    defined = [value for value in values if value is not None]
    return float(statistic(defined)) if len(defined) == len(values) else None


def column_names(columns: Sequence[ScoreKey]) -> list[str]:
    """Task, metric and unit; where two columns would share a name, the protocol and the data's hash as well."""
    names = [metric_name(column.task, column.metric) for column in columns]
    for more in (lambda c: c.protocol, lambda c: f"data {c.data_sha256[:8]}"):
        count = Counter(names)
        names = [f"{name} [{more(c)}]" if count[name] > 1 else name for name, c in zip(names, columns, strict=True)]
    return names


def table_rows(table: SweepTable) -> tuple[list[str], list[list[str]]]:
    """Heads and printed cells: each job; behind the last one of a group of seeds its mean and spread."""
    heads = ["job", *table.keys, *column_names(table.columns), "time", "state"]
    group_behind = {id(group.jobs[-1]): group for group in table.groups}
    rows = []
    for job in table.jobs:
        scores = [_cell(job, column) for column in table.columns]
        overrides = [job.overrides.get(key, "") for key in table.keys]
        rows.append([job.name, *overrides, *scores, format_seconds(job.seconds), job.state])
        if (group := group_behind.get(id(job))) is not None:
            shared = [group.overrides.get(key, "") for key in table.keys]
            spreads = [_spread(group, column) for column in table.columns]
            rows.append([MEAN, *shared, *spreads, "", f"n = {len(group.jobs)}"])
    return heads, rows


def _cell(job: SweepJob, column: ScoreKey) -> str:
    return format_value(job.scores[column], column.metric) if column in job.scores else NOT_SCORED


def _spread(group: SeedGroup, column: ScoreKey) -> str:
    mean, sd = group.mean[column], group.sd[column]
    if mean is None or sd is None:
        return UNDEFINED
    return f"{format_value(mean, column.metric)} ± {format_value(sd, column.metric)}"


def format_seconds(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    >>> format_seconds(3725.4), format_seconds(7.6), format_seconds(None)
    ('1:02:05', '0:08', '')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def to_markdown(table: SweepTable) -> str:
    """The content of sweep.md."""
    heads, rows = table_rows(table)
    lines = [f"### {table.title}", ""]
    for number, row in enumerate([heads, *rows]):
        cells = [cell.replace("|", "\\|") for cell in row]
        if row[0] == MEAN:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
        if number == 0:
            lines.append("|" + ":---|" * (1 + len(table.keys)) + "---:|" * (len(table.columns) + 1) + ":---|")
    lines += ["", *(f"- {name_jobs(jobs)}: {error}".replace("\n", " ") for error, jobs in table.errors.items())]
    lines += [table.best] if table.best else []
    if table.groups:
        lines += ["± is the sample standard deviation over n seeds."]
    return "\n".join(lines).rstrip() + "\n"


def name_jobs(jobs: Sequence[SweepJob]) -> str:
    """E.g. `job 3` or `jobs 0, 1, 3`."""
    return f"job{'s' if len(jobs) > 1 else ''} {', '.join(job.name for job in jobs)}"


def to_csv(table: SweepTable) -> str:
    """The content of sweep.csv: full numbers; `row` is job, mean or sd, and `n` the jobs a number is made of."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "job", *table.keys, *column_names(table.columns), "n", "seconds", "state", "error"])
    for job in table.jobs:
        overrides = [job.overrides.get(key, "") for key in table.keys]
        scores = [_number(job.scores.get(column)) for column in table.columns]
        writer.writerow(["job", job.name, *overrides, *scores, 1, _number(job.seconds), job.state, job.error])
    for group in table.groups:
        shared = [group.overrides.get(key, "") for key in table.keys]
        for name, values in ((MEAN, group.mean), (SPREAD, group.sd)):
            numbers = [_number(values[column]) for column in table.columns]
            writer.writerow([name, "", *shared, *numbers, len(group.jobs), "", "", ""])
    return stream.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def to_record(table: SweepTable) -> dict[str, Any]:
    """The content of sweep.json; scores in the order of `columns`."""
    columns = [
        {
            "task": column.task,
            "language": column.language,
            "metric": column.metric,
            "protocol": column.protocol,
            "data_sha256": column.data_sha256,
            "count": column.count,
            "higher_is_better": column.higher_is_better,
        }
        for column in table.columns
    ]
    jobs = [
        {
            "job": job.name,
            "state": job.state,
            "overrides": job.overrides,
            "scores": [job.scores.get(column) for column in table.columns],
            "seconds": job.seconds,
            "error": job.error,
        }
        for job in table.jobs
    ]
    groups = [
        {
            "overrides": group.overrides,
            "jobs": [job.name for job in group.jobs],
            "n": len(group.jobs),
            "mean": [group.mean[column] for column in table.columns],
            "sd": [group.sd[column] for column in table.columns],
        }
        for group in table.groups
    ]
    return {"format": FORMAT, "keys": table.keys, "columns": columns, "jobs": jobs, "groups": groups}


def print_table(table: SweepTable, file: TextIO | None = None) -> None:
    """The table for the terminal, and below it what failed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a pipe has no width: nothing is cut off in a log
    heads, rows = table_rows(table)
    drawn = Table(box=None, pad_edge=False)
    for position, head in enumerate(heads):
        is_number = len(table.keys) < position < len(heads) - 1
        drawn.add_column(escape(head), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row), style="bold" if row[0] == MEAN else "")
    console.print(f"[bold]{escape(table.title)}[/bold]", soft_wrap=True)
    console.print(drawn)
    for error, jobs in table.errors.items():
        console.print(escape(f"{name_jobs(jobs)} {jobs[0].state}: {error}"), soft_wrap=True)
    if table.best:
        console.print(escape(table.best), soft_wrap=True)
