"""Where a task's data comes from: the embedded sets, files of the user, or a dataset on the Hugging Face hub."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlkd.data.reading import Header, read_tsv
from mlkd.errors import Problem, did_you_mean, fail
from mlkd.tasks.base import Task

_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Za-z0-9]+)*")
_YAML_BOOLEANS = ("True", "False", "true", "false")


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
    """E206 for what YAML made of `no`, E207 for what is no language code at all."""
    if language in _YAML_BOOLEANS:
        remedy = 'YAML reads no, on and yes as booleans: write "no" in quotes'
        return Problem("E206", f"is the boolean {language.capitalize()}", where=where, remedy=remedy)
    if not _LANGUAGE.fullmatch(language):
        return Problem("E207", f"'{language}' is no language code such as de or zh_tw", where=where)
    return None


def check_embedded(language: str, available: Sequence[str]) -> None:
    """E207 where the embedded sets lack `language`."""
    if language not in available:
        what = f"the embedded set has no '{language}', only {', '.join(available)}.{did_you_mean(language, available)}"
        raise fail("E207", what, remedy="set path or dataset to use other data")


def fill_template(template: str, where: str, **values: str) -> str:
    """`template` with its placeholders filled in.

    Raises:
        MlkdError: E204 naming a placeholder that does not exist here.

    >>> fill_template("dir/en-{language}.tsv", "path", language="de")
    'dir/en-de.tsv'
    """

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            known = ", ".join(f"{{{key}}}" for key in values)
            raise fail("E204", f"'{template}' has the placeholder '{{{name}}}'; known here: {known}", where=where)
        return values[name]

    return re.sub(r"\{(\w*)\}", value_of, template)


def read_columns(path: str, columns: Sequence[str]) -> tuple[list[list[str]], list[int]]:
    """Named columns of a TSV file with a header, and the line number of each row."""
    distinct = list(dict.fromkeys(columns))
    table = read_tsv(path, distinct, Header.present)
    return [table.columns[column] for column in columns], table.line_numbers
