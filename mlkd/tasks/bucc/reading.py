"""Mining corpora in the BUCC layout, from files or from the hub, with every id of the gold set checked."""

from __future__ import annotations

from mlkd.data.formats.tsv import raise_first, read_lines
from mlkd.data.hub import clean_texts
from mlkd.data.path_templates import fill_template
from mlkd.errors import MlkdError, Problem, fail
from mlkd.tasks.base import collect_problems
from mlkd.tasks.bucc.protocols import MiningSide, MiningSplit
from mlkd.tasks.data_sources import SourcedTask


def read_mining_files(template: str, where: str, pair: str) -> MiningSplit:
    """Read the three files of a split.

    Args:
        template: path with `{side}`, and perhaps `{pair}`.
        where: the configuration field that holds the template.
        pair: languages of source and target, e.g. `de-en`.

    Raises:
        MlkdError: E307 a line without TAB, E316 an id that occurs twice or that the corpus lacks, and what
            `read_lines` raises.
    """
    if "{side}" not in template:
        raise fail("E204", f"'{template}' must hold the placeholder {{side}} for de, en and gold", where=where)
    first, second = pair.split("-")
    paths = [fill_template(template, where, pair=pair, side=side) for side in (first, second, "gold")]
    cells, errors = [], []
    for path in paths:
        try:
            cells.append(_read_two_columns(path))
        except MlkdError as error:
            errors.append(error)
    collect_problems(errors)
    source, target = (_side(*columns, path) for columns, path in zip(cells[:2], paths[:2], strict=True))
    gold = list(zip(*cells[2], strict=True))
    known = (set(source.ids), set(target.ids))
    problems = [
        Problem("E316", f"gold id '{identifier}' not in the corpus {path}", f"{paths[2]}:{line}")
        for line, row in enumerate(gold, start=1)
        for identifier, ids, path in zip(row, known, paths[:2], strict=True)
        if identifier not in ids
    ]
    raise_first(problems, "gold ids are unknown")
    return MiningSplit(source, target, gold)


def _read_two_columns(path: str) -> tuple[list[str], list[str]]:
    """Ids and the rest of each line, kept whole: the `laser` protocol compares whole lines."""
    first, second, problems = [], [], []
    for number, line in enumerate(read_lines(path, raw=True).lines, start=1):
        identifier, tab, text = line.removesuffix("\r").partition("\t")
        if not tab:
            problems.append(Problem("E307", "expected 2 columns (tab), got 1", f"{path}:{number}"))
        first.append(identifier)
        second.append(text)
    raise_first(problems, "lines of this file have another number of columns")
    return first, second


def _side(ids: list[str], texts: list[str], path: str) -> MiningSide:
    seen: set[str] = set()
    for line, identifier in enumerate(ids, start=1):
        if identifier in seen:
            raise fail("E316", f"id '{identifier}' occurs a second time", where=f"{path}:{line}")
        seen.add(identifier)
    return MiningSide(ids, texts)


def read_mining_hub(task: SourcedTask, subset: str) -> MiningSplit:
    """Read a subset of a hub dataset: one row of lists with a gold list, or a row for each gold pair.

    Raises:
        MlkdError: E316 a gold pair outside the corpora, and what `SourcedTask.read_hub` raises.
    """
    where = f"{task.dataset}, {subset}"
    first, second = task.read_hub(subset, ["sentence1", "sentence2"])
    if len(first) == 1 and isinstance(first[0], list):
        (gold,) = task.read_hub(subset, ["gold"])
        pairs = [(int(source), int(target)) for source, target in gold[0]]
        first, second = first[0], second[0]
    else:
        pairs = [(row, row) for row in range(1, len(first) + 1)]
    outside = [pair for pair in pairs if not (1 <= pair[0] <= len(first) and 1 <= pair[1] <= len(second))]
    if outside:
        raise fail("E316", f"gold pair {outside[0]} is outside 1..{len(first)}, 1..{len(second)}", where=where)
    source_side, target_side = (
        MiningSide([str(row) for row in range(1, len(texts) + 1)], clean_texts(texts, where))
        for texts in (first, second)
    )
    return MiningSplit(source_side, target_side, [(str(source), str(target)) for source, target in pairs])
