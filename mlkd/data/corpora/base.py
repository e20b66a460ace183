"""What a parallel corpus is: a declaration whose `load` gives filtered, split pairs and a report."""

from __future__ import annotations

import enum
import logging
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mlkd.data.filters import Limits, filter_pairs
from mlkd.data.formats.compression import find_missing
from mlkd.data.formats.tsv import OnBadUtf8
from mlkd.data.languages import check_language, check_languages
from mlkd.data.pairs import LanguagePair, RawPairs
from mlkd.data.path_templates import check_required_template, fill_template
from mlkd.data.plausibility import warn_about_language
from mlkd.data.report import DataReport, LanguageReport
from mlkd.data.split import Split, split_pairs
from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.runtime.hashing import fingerprint

logger = logging.getLogger("mlkd")

_PLACEHOLDERS = ("language", "source_language")


class OnMisaligned(enum.Enum):
    """What to do where two files have different line counts: refuse them, or read up to the shorter one's end."""

    error = "error"
    truncate = "truncate"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Loaded text, one entry a target language, in the order of `languages`; `dev` has no source of `train`."""

    train: list[LanguagePair]
    dev: list[LanguagePair]
    report: DataReport


@dataclass(kw_only=True, slots=True)
class ParallelCorpus(ABC):
    """Base of all corpora: the languages, what is left out, what is held out.

    Args:
        languages: target languages (ISO 639, quotes around "no"); what is not listed is not read.
        source_language: the language the teacher knows.
        max_pairs_per_language: training pairs kept of each language, chosen by content and `dev_seed`; None or 0: all.
        min_chars: pairs with a shorter side are left out.
        max_chars: pairs with a longer side are left out (250: Reimers & Gurevych 2020); None: no limit.
        max_length_ratio: pairs with a side this many times longer than the other are left out.
        drop_identical: leave out pairs whose sides are equal (untranslated).
        drop_duplicates: keep a pair once.
        max_dropped_share: more pairs with an empty side than this share are an error.
        dev_pairs: pairs held out of each language; 0: none.
        max_dev_share: at most this share of a language is held out, whatever `dev_pairs` says.
        dev_seed: chooses the held-out pairs.
        language_temperature: T in sampling languages in proportion to (number of pairs) ** (1 / T).
        on_misaligned: error or truncate, for two files of different length.
        on_bad_utf8: error, skip or replace, for lines that are not UTF-8.
    """

    languages: list[str] = field(default_factory=list)
    source_language: str = "en"
    max_pairs_per_language: int | None = None
    min_chars: int = 1
    max_chars: int | None = 250
    max_length_ratio: float | None = None
    drop_identical: bool = False
    drop_duplicates: bool = True
    max_dropped_share: float = 0.05
    dev_pairs: int = 1000
    max_dev_share: float = 0.1
    dev_seed: int = 0
    language_temperature: float = 1.0
    on_misaligned: OnMisaligned = OnMisaligned.error
    on_bad_utf8: OnBadUtf8 = OnBadUtf8.error

    def __post_init__(self) -> None:
        problems = [*self._range_problems(), *self._field_problems()]
        if problems:
            raise MlkdError(problems)

    def _range_problems(self) -> list[Problem]:
        if self.languages:
            problems = check_languages(self.languages, "languages")
        else:
            problems = [Problem("E205", "is required and not set", "languages", "for example: data.languages=[de,fr]")]
        source_problem = check_language(self.source_language, "source_language")
        problems += [source_problem] if source_problem else []
        if self.source_language in self.languages:
            problems.append(Problem("E207", f"'{self.source_language}' is the source language too", "languages"))
        problems += out_of_range(self, "max_pairs_per_language", "min_chars", "dev_pairs", ge=0)
        problems += out_of_range(self, "max_chars", "max_length_ratio", ge=1)
        problems += out_of_range(self, "max_dropped_share", "max_dev_share", ge=0, le=1)
        problems += out_of_range(self, "language_temperature", gt=0)
        if self.max_chars is not None and self.max_chars < self.min_chars:
            problems.append(Problem("E204", f"{self.max_chars} is below min_chars, {self.min_chars}", "max_chars"))
        return problems

    def _field_problems(self) -> list[Problem]:
        """Problems of the fields a subclass adds."""
        return []

    def template_problems(self, name: str, example: str) -> list[Problem]:
        """What is wrong with the template in field `name`, of which `example` shows a value."""
        return check_required_template(getattr(self, name), name, _PLACEHOLDERS, f"data.{name}={example}")

    def filled(self, name: str, language: str) -> str:
        """The template in field `name` for one target language."""
        return fill_template(getattr(self, name), name, language=language, source_language=self.source_language)

    def files(self) -> dict[str, list[Path]]:
        """The files read for each language; none where the text does not come from files."""
        return {}

    def check_files(self) -> None:
        """Look for all files before anything expensive happens.

        Raises:
            MlkdError: E301 for every file that is missing.
        """
        paths = dict.fromkeys(path for paths in self.files().values() for path in paths)
        problems = [problem for problem in map(find_missing, paths) if problem]
        if problems:
            raise MlkdError(problems)

    @abstractmethod
    def read(self, language: str) -> RawPairs:
        """All pairs of one target language, as they stand.

        Raises:
            MlkdError: E3xx naming file, line, value and remedy.
        """

    def load(self) -> Corpus:
        """Read, filter and split all languages.

        Raises:
            MlkdError: the problems of all files together.
        """
        self.check_files()
        problems: list[Problem] = []
        pairs: dict[str, list[tuple[str, str]]] = {}
        reports: dict[str, LanguageReport] = {}
        for language in self.languages:
            try:
                pairs[language], reports[language] = self._read_and_filter(language)
            except MlkdError as error:
                problems += error.problems
        if problems:
            raise MlkdError(dict.fromkeys(problems))
        splits = split_pairs(
            pairs,
            dev_pairs=self.dev_pairs,
            max_dev_share=self.max_dev_share,
            max_train_pairs=self.max_pairs_per_language or None,
            seed=self.dev_seed,
        )
        empty = [
            Problem("E318", f"no training pairs are left for '{name}'") for name, s in splits.items() if not s.train
        ]
        if empty:
            raise MlkdError(empty)
        for language, split in splits.items():
            _complete_report(reports[language], split)
        return Corpus(
            [self._language_pair(language, split.train) for language, split in splits.items()],
            [self._language_pair(language, split.dev) for language, split in splits.items() if split.dev],
            DataReport(reports),
        )

    def _read_and_filter(self, language: str) -> tuple[list[tuple[str, str]], LanguageReport]:
        raw = self.read(language)
        limits = Limits(
            self.min_chars, self.max_chars, self.max_length_ratio, self.drop_identical, self.drop_duplicates
        )
        kept, dropped = filter_pairs(raw, limits)
        dropped += raw.dropped
        self._refuse_empty(raw, dropped, len(kept))
        warn_about_language(kept, self.source_language, language, raw.origin)
        report = LanguageReport(language, raw.origin, raw.num_read, dropped=dict(dropped))
        report.cleaned, report.files = dict(raw.cleaned), dict(raw.files)
        return kept, report

    def _refuse_empty(self, raw: RawPairs, dropped: Counter[str], num_kept: int) -> None:
        num_read, num_empty = raw.num_read, dropped["empty"]
        if num_read == 0:
            raise MlkdError(Problem("E303", f"{raw.origin} has no pairs"))
        if num_empty > self.max_dropped_share * num_read:
            what = (
                f"{num_empty:,} of {num_read:,} pairs have an empty side ({100 * num_empty / num_read:.1f} %; "
                f"at most {100 * self.max_dropped_share:g} % may)"
            )
            remedy = "check that the two sides belong together, or raise data.max_dropped_share"
            raise MlkdError(Problem("E317", what, raw.origin, remedy))
        if num_kept == 0:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
            what = f"none of {num_read:,} pairs is left; dropped: {reasons}"
            raise MlkdError(Problem("E318", what, raw.origin, "loosen the filters under data"))

    def _language_pair(self, language: str, rows: list[tuple[str, str]]) -> LanguagePair:
        return LanguagePair(
            self.source_language, language, [source for source, _ in rows], [target for _, target in rows]
        )


def _complete_report(report: LanguageReport, split: Split) -> None:
    report.train, report.dev = len(split.train), len(split.dev)
    report.dropped.update(split.dropped)
    kept = [*split.train, *split.dev]
    report.identical = sum(source == target for source, target in kept)
    texts = (text for rows in (split.train, split.dev) for pair in rows for text in pair)
    report.fingerprint = fingerprint([str(len(split.train)), *texts])
