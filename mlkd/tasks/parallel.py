"""Sets of English sentences and their translations, one per language, shared by tatoeba, translation and mse.

Shapes: N pairs, D dimensions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mlkd.data.formats.tsv import read_lines
from mlkd.data.hub import clean_texts
from mlkd.data.templates import fill_template
from mlkd.errors import Problem, fail
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.sources import (
    Origin,
    SourcedTask,
    check_embedded,
    language_problems,
    read_columns,
)
from mlkd.tasks.tatoeba_languages import three_letters

_ENGLISH = "en"


class EnglishReader(enum.Enum):
    """Whose vectors stand for the English side."""

    encoder = "encoder"  # of the encoder that is scored
    teacher = "teacher"  # of the teacher: for a student of one language, which never learned English (LASER3)


@dataclass(frozen=True, slots=True)
class ParallelSet:
    """Pair n is (`english[n]`, `foreign[n]`); pairs with an empty side were left out and counted in `num_empty`."""

    language: str
    english: list[str]
    foreign: list[str]
    num_empty: int = 0


@dataclass(kw_only=True, slots=True)
class ParallelTask(SourcedTask):
    """A task on pairs of English sentences and translations.

    Placeholders of `path`, `subset` and the columns: `{language}` (de), `{language3}` (deu). A path with `{side}`
    (de, then en) or `{side3}` (deu, then eng) names two files of one sentence a line; any other path is a TSV file
    with a header, for each language or (without a placeholder) for all of them, row-aligned.

    Args:
        languages: codes of the languages beside English.
        english_column: None for `en` in files and `sentence2` on the hub.
        foreign_column: None for `{language}` in files and `sentence1` on the hub.
    """

    languages: list[str] = field(default_factory=lambda: ["de", "es", "ru", "zh"])
    english_column: str | None = None
    foreign_column: str | None = None

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self) + language_problems(self.languages, "languages")
        if _ENGLISH in self.languages:
            problems.append(Problem("E204", "'en' is always one side: list the other languages", where="languages"))
        return problems

    def load(self) -> list[ParallelSet]:
        """All sets in the order of `languages`; every problem of every language at once."""
        return load_each(self.languages, self._load_language)

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[ParallelSet] = data
        for pairs in sets:
            yield from pairs.english
            yield from pairs.foreign

    def _load_language(self, language: str) -> ParallelSet:
        if self.origin is Origin.embedded:
            from mlkd.demo_data import LANGUAGES, everyday

            check_embedded(language, LANGUAGES)
            english, foreign = map(list, zip(*everyday(language), strict=True))
        elif self.origin is Origin.hub:
            english, foreign = self._read_hub(language)
        elif "{side" in self.path:
            english, foreign = self._read_line_files(language)
        else:
            columns = [self._column(self.english_column, "en", language)]
            columns.append(self._column(self.foreign_column, "{language}", language))
            (english, foreign), _ = read_columns(self._fill(self.path, "path", language), columns)
        return _without_empty(language, english, foreign)

    def _read_hub(self, language: str) -> tuple[list[str], list[str]]:
        subset = self._fill(self.subset, "subset", language)
        columns = [self._column(self.english_column, "sentence2", language)]
        columns.append(self._column(self.foreign_column, "sentence1", language))
        english, foreign = self.read_hub(subset, columns)
        where = f"{self.dataset}, {subset}"
        return clean_texts(english, where), clean_texts(foreign, where)

    def _read_line_files(self, language: str) -> tuple[list[str], list[str]]:
        paths = [self._fill(self.path, "path", language, side) for side in (_ENGLISH, language)]
        english, foreign = (read_lines(path).lines for path in paths)
        if len(english) != len(foreign):
            what = f"line counts differ: {paths[0]} {len(english):,}, {paths[1]} {len(foreign):,}"
            raise fail("E316", what, remedy="line n of both files must be a translation of each other")
        return english, foreign

    def _column(self, configured: str | None, default: str, language: str) -> str:
        return self._fill(default if configured is None else configured, "column", language)

    def _fill(self, template: str, where: str, language: str, side: str = "") -> str:
        values = {"language": language, "language3": three_letters(language)}
        if side:
            values |= {"side": side, "side3": three_letters(side)}
        return fill_template(template, where, **values)


@dataclass(kw_only=True, slots=True)
class NearestTask(ParallelTask):
    """A parallel task of nearest neighbours, whose English side the teacher may read.

    Args:
        english: see EnglishReader.
        search: how neighbours are searched.
    """

    english: EnglishReader = EnglishReader.encoder
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    @property
    def needs_teacher(self) -> bool:
        return self.english is EnglishReader.teacher

    def two_sides(
        self, encoder: Encoder, teacher: Encoder | None, english: Iterable[str], foreign: Iterable[str]
    ) -> tuple[TextVectors, TextVectors]:
        """Vectors of English and of foreign texts.

        Raises:
            MlkdError: E210 where the teacher reads English in another dimension.
        """
        if not self.needs_teacher:
            both = TextVectors(encoder, [*english, *foreign])
            return both, both
        assert teacher is not None, "preflight and mlkd-eval provide what a task needs"
        sides = TextVectors(teacher, english), TextVectors(encoder, foreign)
        if sides[0].num_dimensions != sides[1].num_dimensions:
            what = f"teacher dim {sides[0].num_dimensions} != student dim {sides[1].num_dimensions}"
            remedy = "set it to encoder; a run that reduced its teacher has its own scores by that in its eval/"
            raise fail("E210", what, where=f"task.{self.name}.english", remedy=remedy)
        return sides

    def named(self, protocol: str) -> str:
        """The protocol, with the teacher where it reads English: such numbers compare with each other alone."""
        return f"{protocol}, English by the teacher" if self.needs_teacher else protocol


def hash_sets(sets: Iterable[ParallelSet]) -> str:
    """SHA-256 of every language, text and alignment."""
    return hash_rows(
        (pairs.language, english, foreign)
        for pairs in sets
        for english, foreign in zip(pairs.english, pairs.foreign, strict=True)
    )


def nearest_both_ways(search: NeighbourSearch, source_ND: Tensor, target_ND: Tensor) -> tuple[list[int], list[int]]:
    """For each source the nearest target by cosine, and for each target the nearest source; lowest index wins."""
    forward, backward = search.both_ways(source_ND, target_ND, 1)
    return forward.index[:, 0].tolist(), backward.index[:, 0].tolist()


def hits(predicted: list[int], texts: list[str]) -> list[bool]:
    """Whether each prediction is right: its text is *identical* to the wanted one, wherever it stands.

    >>> hits([1, 1, 0], ["yes", "yes", "no"])
    [True, True, False]
    """
    return [texts[row] == wanted for row, wanted in zip(predicted, texts, strict=True)]


def _without_empty(language: str, english: list[str], foreign: list[str]) -> ParallelSet:
    full = [pair for pair in zip(english, foreign, strict=True) if pair[0].strip() and pair[1].strip()]
    if not full:
        raise fail("E303", f"no pair with text on both sides for '{language}'")
    return ParallelSet(language, [pair[0] for pair in full], [pair[1] for pair in full], len(english) - len(full))
