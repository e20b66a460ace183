"""Parallel sets: sentences of a source language and their translations, one set per target language.

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
from mlkd.data.path_templates import fill_template
from mlkd.errors import Problem, fail
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.data_sources import (
    Origin,
    SourcedTask,
    check_embedded,
    language_problem,
    language_problems,
    named_language,
    read_columns,
)
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.tatoeba_languages import three_letters


class SourceEncoder(enum.Enum):
    """Which encoder embeds the source side."""

    student = "student"  # the encoder that is scored
    teacher = "teacher"  # for a student of one language, which never learned the source language (LASER3)


@dataclass(frozen=True, slots=True)
class ParallelSet:
    """Pair n is (`source[n]`, `target[n]`); pairs with an empty side were left out and counted in `num_empty`."""

    language: str
    source: list[str]
    target: list[str]
    num_empty: int = 0


@dataclass(kw_only=True, slots=True)
class ParallelTask(SourcedTask):
    """A task on parallel text: sentences of a source language (English by default) and their translations.

    Placeholders of `path`, `subset` and the columns: `{language}` (de), `{language3}` (deu), `{source_language}` (en)
    and `{source_language3}` (eng). A path with `{side}` (de, then en) or `{side3}` (deu, then eng) names two files of
    one sentence a line; any other path is a TSV file with a header, for each language or (without a placeholder) for
    all of them, row-aligned.

    Args:
        languages: codes of the target languages.
        source_language: code of the language that is one side of every pair.
        source_column: None for `{source_language}` in files and `sentence2` on the hub.
        target_column: None for `{language}` in files and `sentence1` on the hub.
    """

    languages: list[str] = field(default_factory=lambda: ["de", "es", "ru", "zh"])
    source_language: str = "en"
    source_column: str | None = None
    target_column: str | None = None

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self) + language_problems(self.languages, "languages")
        problem = language_problem(self.source_language, "source_language")
        problems += [problem] if problem is not None else []
        if self.source_language in self.languages:
            what = f"'{self.source_language}' is always one side (source_language): list the other languages"
            problems.append(Problem("E204", what, where="languages"))
        return problems

    def load(self) -> list[ParallelSet]:
        """All sets in the order of `languages`; every problem of every language at once."""
        return load_each(self.languages, self._load_language)

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[ParallelSet] = data
        for pairs in sets:
            yield from pairs.source
            yield from pairs.target

    def _load_language(self, language: str) -> ParallelSet:
        if self.origin is Origin.embedded:
            source, target = self._read_embedded(language)
        elif self.origin is Origin.hub:
            source, target = self._read_hub(language)
        elif "{side" in self.path:
            source, target = self._read_line_files(language)
        else:
            columns = [self._column("source_column", "{source_language}", language)]
            columns.append(self._column("target_column", "{language}", language))
            (source, target), _ = read_columns(self._fill(self.path, "path", language), columns)
        return without_empty(language, source, target)

    def _read_embedded(self, language: str) -> tuple[list[str], list[str]]:
        from mlkd.demo_data import LANGUAGES, everyday

        for code in (self.source_language, language):
            check_embedded(code, ("en", *LANGUAGES))
        pairs = everyday(language, self.source_language)
        return [source for source, _ in pairs], [target for _, target in pairs]

    def _read_hub(self, language: str) -> tuple[list[str], list[str]]:
        subset = self._fill(self.subset, "subset", language)
        columns = [self._column("source_column", "sentence2", language)]
        columns.append(self._column("target_column", "sentence1", language))
        source, target = self.read_hub(subset, columns)
        where = f"{self.dataset}, {subset}"
        return clean_texts(source, where), clean_texts(target, where)

    def _read_line_files(self, language: str) -> tuple[list[str], list[str]]:
        paths = [self._fill(self.path, "path", language, side) for side in (self.source_language, language)]
        return read_aligned_lines(*paths)

    def _column(self, name: str, default: str, language: str) -> str:
        configured: str | None = getattr(self, name)
        return self._fill(default if configured is None else configured, name, language)

    def _fill(self, template: str, where: str, language: str, side: str = "") -> str:
        values = {"language": language, "language3": three_letters(language)}
        values |= {"source_language": self.source_language, "source_language3": three_letters(self.source_language)}
        if side:
            values |= {"side": side, "side3": three_letters(side)}
        return fill_template(template, where, **values)


@dataclass(kw_only=True, slots=True)
class NearestTask(ParallelTask):
    """A parallel task of nearest neighbours, whose source side the teacher may encode.

    Args:
        source_encoder: student (the encoder that is scored), or teacher.
        search: how neighbours are searched.
    """

    source_encoder: SourceEncoder = SourceEncoder.student
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    @property
    def needs_teacher(self) -> bool:
        return self.source_encoder is SourceEncoder.teacher

    def two_sides(
        self, encoder: Encoder, teacher: Encoder | None, source: Iterable[str], target: Iterable[str]
    ) -> tuple[TextVectors, TextVectors]:
        """Vectors of source and of target texts.

        Raises:
            MlkdError: E210 where the teacher encodes the source side and has another dimension.
        """
        if not self.needs_teacher:
            both = TextVectors(encoder, [*source, *target])
            return both, both
        assert teacher is not None, "preflight and mlkd-eval provide what a task needs"
        sides = TextVectors(teacher, source), TextVectors(encoder, target)
        if sides[0].num_dimensions != sides[1].num_dimensions:
            what = f"teacher dim {sides[0].num_dimensions} != student dim {sides[1].num_dimensions}"
            remedy = "set it to student; a run that reduced its teacher has its own scores by that in its eval/"
            raise fail("E210", what, where=f"task.{self.name}.source_encoder", remedy=remedy)
        return sides

    def named(self, protocol: str) -> str:
        """The protocol, with the teacher where it encodes the source: such numbers compare with each other alone."""
        return f"{protocol}, {named_language(self.source_language)} by the teacher" if self.needs_teacher else protocol


def hash_sets(sets: Iterable[ParallelSet]) -> str:
    """SHA-256 of every language, text and alignment."""
    return hash_rows(
        (pairs.language, source, target)
        for pairs in sets
        for source, target in zip(pairs.source, pairs.target, strict=True)
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


def without_empty(language: str, source: list[str], target: list[str]) -> ParallelSet:
    """The pairs with text on both sides.

    Raises:
        MlkdError: E303 where there is none.
    """
    full = [pair for pair in zip(source, target, strict=True) if pair[0].strip() and pair[1].strip()]
    if not full:
        raise fail("E303", f"no pair with text on both sides for '{language}'")
    return ParallelSet(language, [pair[0] for pair in full], [pair[1] for pair in full], len(source) - len(full))


def read_aligned_lines(source_path: str, target_path: str) -> tuple[list[str], list[str]]:
    """Lines of two files of which line n of the one translates line n of the other.

    Raises:
        MlkdError: E316 where they have different numbers of lines, and what `read_lines` raises for both.
    """
    source, target = (text.lines for text in load_each([source_path, target_path], read_lines))
    if len(source) != len(target):
        what = f"line counts differ: {source_path} {len(source):,}, {target_path} {len(target):,}"
        raise fail("E316", what, remedy="line n of both files must be a translation of each other")
    return source, target
