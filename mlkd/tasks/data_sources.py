"""Data sources of a task: the embedded sets, files of the user, or a dataset on the Hugging Face hub."""

from __future__ import annotations

import csv
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlkd.data.formats.tsv import Header, raise_first, read_lines, read_tsv
from mlkd.data.hub import HubDataset
from mlkd.data.languages import check_language
from mlkd.errors import Problem, did_you_mean, fail
from mlkd.tasks.base import Task


class Origin(enum.Enum):
    """Which of the three sources the fields select."""

    embedded = "embedded"
    files = "files"
    hub = "hub"


@dataclass(kw_only=True, slots=True)
class SourcedTask(Task):
    """A task whose data is embedded unless `path` or `dataset` is set.

    Args:
        path: files of the user, with placeholders in braces that each task names; compressed files too.
        dataset: id of a dataset on the hub, or a local folder of the same layout.
        subset: its configuration name, with the same placeholders.
        revision: commit of the dataset; None for its newest.
        split: which of its splits is scored.
    """

    path: str = ""
    dataset: str = ""
    subset: str = ""
    revision: str | None = None
    split: str = "test"

    @property
    def origin(self) -> Origin:
        if self.path:
            return Origin.files
        return Origin.hub if self.dataset else Origin.embedded

    def read_hub(self, subset: str, columns: Sequence[str], split: str = "") -> list[list[Any]]:
        """Columns of a subset of the dataset, of another split than the task's where one is named.

        Raises:
            MlkdError: see `HubDataset.load`.
        """
        key = f"task.{self.name}"
        hub = HubDataset(self.dataset, self.revision, key, f"set {key}.path to your own files")
        table, _ = hub.load(subset, split or self.split, columns)
        return [list(table[column]) for column in columns]

    def _field_problems(self) -> list[Problem]:
        problems = Task._field_problems(self)
        if self.path and self.dataset:
            problems.append(Problem("E209", f"set only one of path ({self.path}) and dataset ({self.dataset})"))
        return problems


def language_problems(languages: Sequence[str], where: str) -> list[Problem]:
    """What is wrong with a list of language codes given in a configuration."""
    problems = []
    if not languages:
        problems.append(Problem("E204", "must name at least one language", where=where))
    for position, language in enumerate(languages):
        problem = language_problem(language, f"{where}[{position}]")
        if problem is None and language in languages[:position]:
            problem = Problem("E204", f"'{language}' is listed twice", where=f"{where}[{position}]")
        if problem is not None:
            problems.append(problem)
    return problems


def language_problem(language: str, where: str) -> Problem | None:
    """E206 for what YAML made of `no`, E207 for what is no language code."""
    return check_language(language, where)


def named_language(code: str) -> str:
    """The code, and `English` for English: protocols have said so from the start."""
    return "English" if code == "en" else code


def check_embedded(language: str, available: Sequence[str]) -> None:
    """E207 where the embedded sets lack `language`."""
    if language not in available:
        what = f"the embedded set has no '{language}', only {', '.join(available)}.{did_you_mean(language, available)}"
        raise fail("E207", what, remedy="set path or dataset to use other data")


def read_columns(path: str, columns: Sequence[str]) -> tuple[list[list[str]], list[int]]:
    """Columns of a TSV file, or of a CSV file by its suffix, and the line number of each row.

    Columns are names in a header, or all of them positions from 0 in a file without one. Rows of a file without
    header may have more columns than are wanted: the STS benchmark has a source behind some of its sentences.
    """
    distinct = list(dict.fromkeys(columns))
    is_headed = not all(column.isdigit() for column in columns)
    if path.lower().removesuffix(".gz").endswith(".csv") and "\t" not in read_lines(path).lines[0]:
        values, line_numbers = _read_csv(path, distinct, is_headed)
    else:
        table = read_tsv(path, distinct, Header.present if is_headed else Header.absent, strict=is_headed)
        values, line_numbers = table.columns, table.line_numbers
    return [values[column] for column in columns], line_numbers


def _read_csv(path: str, columns: Sequence[str], is_headed: bool) -> tuple[dict[str, list[str]], list[int]]:
    """Comma-separated columns, where a quoted cell may hold a comma; no cell holds a line break."""
    rows: list[tuple[int, list[str]]] = []
    problems = []
    for number, line in enumerate(read_lines(path).lines, start=1):
        if not line.strip():
            continue
        try:
            cells = next(csv.reader([line], strict=True))
        except csv.Error as error:
            problems.append(Problem("E307", f"not CSV ({error})", f"{path}:{number}"))
            continue
        if rows and len(cells) != len(rows[0][1]):
            what = f"expected {len(rows[0][1])} columns (comma), got {len(cells)}"
            problems.append(Problem("E307", what, f"{path}:{number}"))
        rows.append((number, cells))
    raise_first(problems, "lines of this file are not like its first")
    names = rows[0][1] if is_headed else [str(position) for position in range(len(rows[0][1]))]
    for column in columns:
        if column not in names:
            what = f"no column '{column}'; columns: {', '.join(names)}.{did_you_mean(column, names)}"
            raise fail("E307", what, where=f"{path}:1")
    rows = rows[is_headed:]
    values = {column: [cells[names.index(column)] for _, cells in rows] for column in columns}
    return values, [number for number, _ in rows]
