"""Graded sentence pairs from the embedded set, the published file layouts of STS, or a dataset of the hub."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlkd.data.formats.tsv import raise_first, read_lines
from mlkd.data.hub import clean_texts
from mlkd.data.path_templates import fill_template
from mlkd.errors import Problem, fail
from mlkd.tasks.base import hash_rows
from mlkd.tasks.data_sources import Origin, SourcedTask, check_embedded, read_columns

logger = logging.getLogger("mlkd")

_MAX_GOLD = 5.0
# SemEval-2017 task 1 names its files by track; 4b (sentences with translation errors) is no part of mSTS.
_TRACKS = {
    "ar-ar": "track1.ar-ar",
    "ar-en": "track2.ar-en",
    "es-es": "track3.es-es",
    "en-es": "track4a.es-en",
    "en-en": "track5.en-en",
    "en-tr": "track6.tr-en",
}


@dataclass(frozen=True, slots=True)
class StsSet:
    """Pair n is (`first[n]`, `second[n]`) with the human score `gold[n]` in [0, 5]; `pair` is e.g. `en-de`.

    Rows after the last score were left out and counted in `num_unscored`.
    """

    pair: str
    first: list[str]
    second: list[str]
    gold: list[float]
    num_unscored: int = 0


@dataclass(frozen=True, slots=True)
class StsSource:
    """Where the sentences and scores of one pair of languages stand.

    Args:
        task: names path or dataset; the path may lead to a file without scores.
        gold_path: file of one score a line, line n for row n; empty where scores stand beside the sentences.
        columns: templates of the names of both sentence columns and the score column, or positions from 0.
    """

    task: SourcedTask
    gold_path: str
    columns: tuple[str, str, str]

    @property
    def is_by_language(self) -> bool:
        """Whether each language has its own, row-aligned file or subset."""
        return "{language}" in (self.task.path or self.task.subset)

    def read(self, pair: str) -> StsSet:
        """The graded pairs of `pair`.

        Raises:
            MlkdError: E314 for scores, E316 where files that belong together differ, and what their readers raise.
        """
        first_language, second_language = pair.split("-")
        names = {"pair": pair, "first": first_language, "second": second_language}
        if self.task.origin is Origin.embedded:
            return _read_embedded(pair, first_language, second_language)
        if not self.is_by_language:
            return self._read_rows(pair, names)
        left = self._read_rows(pair, names | {"language": first_language})
        right = self._read_rows(pair, names | {"language": second_language})
        if left.gold != right.gold:
            rows = [n for n, (a, b) in enumerate(zip(left.gold, right.gold, strict=False), start=1) if a != b]
            where = (
                f"the scores of row {rows[0]}" if rows else f"the numbers of rows ({len(left.gold)}, {len(right.gold)})"
            )
            what = f"{where} of '{first_language}' and '{second_language}' differ"
            raise fail("E316", what, where=pair, remedy="row n of every language must be the same pair of sentences")
        return StsSet(pair, left.first, right.second, left.gold, left.num_unscored)

    def _read_rows(self, pair: str, names: dict[str, str]) -> StsSet:
        columns = [fill_template(column, "column", **names) for column in self.columns]
        if self.task.origin is Origin.hub:
            subset = fill_template(self.task.subset, "subset", **names)
            where = f"{self.task.dataset}, {subset}"
            first, second, gold = self.task.read_hub(subset, columns)
            first, second = clean_texts(first, where), clean_texts(second, where)
            places = [f"{where}, row {row}" for row in range(1, len(first) + 1)]
        elif self.gold_path:
            first, second, gold, places = self._read_separate_gold(columns[:2], names)
        else:
            path = _fill_path(self.task.path, names)
            (first, second, gold), line_numbers = read_columns(path, columns)
            places = [f"{path}:{line}" for line in line_numbers]
        scores = _parse_gold(gold, places)
        return StsSet(pair, first[: len(scores)], second[: len(scores)], scores, len(first) - len(scores))

    def _read_separate_gold(
        self, columns: list[str], names: dict[str, str]
    ) -> tuple[list[str], list[str], list[str], list[str]]:
        path, gold_path = _fill_path(self.task.path, names), _fill_path(self.gold_path, names)
        (first, second), _ = read_columns(path, columns)
        gold = read_lines(gold_path).lines
        if len(gold) > len(first):
            what = f"line counts differ: {path} {len(first):,}, {gold_path} {len(gold):,}"
            raise fail("E316", what, remedy="line n of the one must be the score of line n of the other")
        places = [f"{gold_path}:{line}" for line in range(1, len(first) + 1)]
        return first, second, gold + [""] * (len(first) - len(gold)), places


def _fill_path(template: str, names: dict[str, str]) -> str:
    if "{track}" in template:
        first, second = names["first"], names["second"]
        track = _TRACKS.get(f"{first}-{second}") or _TRACKS.get(f"{second}-{first}")
        if track is None:
            what = f"SemEval 2017 has no '{first}-{second}', only {', '.join(_TRACKS)}"
            raise fail("E207", what, where="pairs", remedy="name the files of the extension in a task of their own")
        names = names | {"track": track}
    return fill_template(template, "path", **names)


def _read_embedded(pair: str, first: str, second: str) -> StsSet:
    from mlkd.demo_data import LANGUAGES, graded_pairs

    for language in (first, second):
        check_embedded(language, ("en", *LANGUAGES))
    gold, firsts, seconds = zip(*graded_pairs(first, second), strict=True)
    return StsSet(pair, list(firsts), list(seconds), list(gold))


def _parse_gold(cells: Sequence[Any], places: list[str]) -> list[float]:
    """Scores up to the last one there is; an empty cell before it is a fault."""
    texts = ["" if cell is None else str(cell).strip() for cell in cells]
    num_scored = max((row for row, text in enumerate(texts, start=1) if text), default=0)
    if not num_scored:
        raise fail("E314", "no row has a score", where=places[0].rsplit(":", 1)[0] if places else "")
    gold, problems = [], []
    for text, place in zip(texts[:num_scored], places, strict=False):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= _MAX_GOLD:
            problems.append(Problem("E314", f"score '{text}' is no number in [0, 5]", place))
        gold.append(value)
    raise_first(problems, "scores of this set are no number in [0, 5]")
    if num_unscored := len(texts) - num_scored:
        message = "warning[W314]: %s: the last %d of %d rows have no score and are left out"
        logger.warning(message, places[num_scored], num_unscored, len(texts))
    return gold


def hash_graded(sets: Iterable[StsSet]) -> str:
    """SHA-256 of every pair of languages, sentence and grade."""
    return hash_rows(
        (pairs.pair, first, second, repr(gold))
        for pairs in sets
        for first, second, gold in zip(pairs.first, pairs.second, pairs.gold, strict=True)
    )
