"""Corpora in files: TSV, JSON lines, Parquet, and Moses pairs of plain text files."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlkd.data.corpora.base import OnMisaligned, ParallelCorpus
from mlkd.data.formats.jsonl import read_jsonl
from mlkd.data.formats.parquet import read_parquet
from mlkd.data.formats.tsv import Header, Table, TextLines, read_lines, read_tsv
from mlkd.data.pairs import RawPairs
from mlkd.errors import MlkdError, Problem, did_you_mean, fail

logger = logging.getLogger("mlkd")


@dataclass(kw_only=True, slots=True)
class TableCorpus(ParallelCorpus):
    """Base of corpora with both sides in one file.

    Args:
        path: template of the file, e.g. `data/en-{language}.tsv.gz`; may be one file for all languages.
        paths: files by language that the template does not fit (`+data.paths.de=...`).
        source_column: template of the source column.
        target_column: template of the target column.
    """

    path: str = ""
    paths: dict[str, str] = field(default_factory=dict)
    source_column: str = "{source_language}"
    target_column: str = "{language}"

    def _field_problems(self) -> list[Problem]:
        problems = self.template_problems("source_column", "en")
        problems += self.template_problems("target_column", "'{language}'")
        uncovered = [language for language in self.languages if language not in self.paths]
        if uncovered:
            template_problems = self.template_problems("path", "'data/en-{language}.tsv.gz'")
            problems += template_problems
            is_shared = "{language}" not in self.path and "{language}" not in self.target_column
            if not template_problems and is_shared and len(uncovered) > 1:
                what = f"'{self.path}' and the target column are the same for {', '.join(uncovered)}"
                problems.append(Problem("E204", what, "path", "write {language} in data.path or data.target_column"))
        for language in self.paths:
            if language not in self.languages:
                what = f"'{language}' is not in languages.{did_you_mean(language, self.languages)}"
                problems.append(Problem("E204", what, "paths"))
        return problems

    def files(self) -> dict[str, list[Path]]:
        return {language: [self._path(language)] for language in self.languages}

    def read(self, language: str) -> RawPairs:
        path = self._path(language)
        columns = [self.filled(name, language) for name in ("source_column", "target_column")]
        table = self._read_table(path, columns)
        source, target = (table.columns[column] for column in columns)
        dropped = Counter({"bad_utf8": table.cleaned["bad_utf8_skipped"]} if table.cleaned["bad_utf8_skipped"] else {})
        files = {str(path): table.sha256}
        return RawPairs(source, target, str(path), table.line_numbers, dropped, +table.cleaned, files)

    def _path(self, language: str) -> Path:
        return Path(self.paths.get(language) or self.filled("path", language))

    @abstractmethod
    def _read_table(self, path: Path, columns: list[str]) -> Table:
        """Read two columns of one file."""


@dataclass(kw_only=True, slots=True)
class TsvCorpus(TableCorpus):
    """TAB-separated columns, named by a header line or by position (from 0); no quoting.

    Args:
        header: auto (a first line that holds a wanted name is a header), present or absent.
        strict: all lines must have the same number of columns.
    """

    header: Header = Header.auto
    strict: bool = True

    def _read_table(self, path: Path, columns: list[str]) -> Table:
        return read_tsv(path, columns, self.header, strict=self.strict, on_bad_utf8=self.on_bad_utf8)


@dataclass(kw_only=True, slots=True)
class JsonlCorpus(TableCorpus):
    """One JSON object a line; columns are keys, with dots for nested ones (`translation.{language}`)."""

    def _read_table(self, path: Path, columns: list[str]) -> Table:
        return read_jsonl(path, columns, on_bad_utf8=self.on_bad_utf8)


@dataclass(kw_only=True, slots=True)
class ParquetCorpus(TableCorpus):
    """Parquet files with two text columns, nested ones with dots."""

    def _read_table(self, path: Path, columns: list[str]) -> Table:
        return read_parquet(path, columns)


@dataclass(kw_only=True, slots=True)
class MosesCorpus(ParallelCorpus):
    """Two plain text files a language, aligned by line.

    Args:
        source_path: template, e.g. `data/europarl.{language}-en.en`.
        target_path: template, e.g. `data/europarl.{language}-en.{language}`.
    """

    source_path: str = ""
    target_path: str = ""

    def _field_problems(self) -> list[Problem]:
        problems = self.template_problems("source_path", "'data/{language}-en.en'")
        problems += self.template_problems("target_path", "'data/{language}-en.{language}'")
        if self.target_path and "{language}" not in self.target_path and len(self.languages) > 1:
            what = f"'{self.target_path}' is the same file for {', '.join(self.languages)}"
            problems.append(Problem("E204", what, "target_path", "write {language} where the code stands"))
        return problems

    def files(self) -> dict[str, list[Path]]:
        return {language: [*self._paths(language)] for language in self.languages}

    def _paths(self, language: str) -> tuple[Path, Path]:
        return Path(self.filled("source_path", language)), Path(self.filled("target_path", language))

    def read(self, language: str) -> RawPairs:
        paths = self._paths(language)
        sides, problems = [], []
        for path in paths:
            try:
                sides.append(read_lines(path, on_bad_utf8=self.on_bad_utf8))
            except MlkdError as error:
                problems += error.problems
        if problems:
            raise MlkdError(problems)
        source, target = sides
        num_pairs = self._align(paths, source.lines, target.lines)
        return _join(paths, source, target, num_pairs)

    def _align(self, paths: tuple[Path, Path], source: list[str], target: list[str]) -> int:
        if len(source) == len(target):
            return len(source)
        counts = f"line counts differ: {paths[0]} {len(source):,}, {paths[1]} {len(target):,}"
        if self.on_misaligned is OnMisaligned.truncate:
            logger.warning("warning[W302]: %s; the surplus lines of the longer file were left out", counts)
            return min(len(source), len(target))
        line = first_suspicious_line(source, target)
        what = f"{counts}. First suspicious line ~ {line:,} (length ratio). No data was used"
        raise fail("E302", what, remedy="mend the files, or set data.on_misaligned=truncate")


def _join(paths: tuple[Path, Path], source: TextLines, target: TextLines, num_pairs: int) -> RawPairs:
    skipped = source.skipped | target.skipped
    kept = [index for index in range(num_pairs) if index not in skipped]
    dropped = Counter({"bad_utf8": num_pairs - len(kept)} if len(kept) < num_pairs else {})
    surplus = max(len(source.lines), len(target.lines)) - num_pairs
    if surplus:
        dropped["misaligned"] = surplus
    return RawPairs(
        [source.lines[index] for index in kept],
        [target.lines[index] for index in kept],
        str(paths[1]),
        [index + 1 for index in kept],
        dropped,
        source.cleaned + target.cleaned,
        {str(paths[0]): source.sha256, str(paths[1]): target.sha256},
    )


def first_suspicious_line(source: list[str], target: list[str]) -> int:
    """The line, from 1, after which the two sides' lengths stop going together; an estimate, not a proof.

    The unlikeliness of each pair of lengths, |log ratio - median|, has one mean where lines correspond and a larger
    one where they do not; the change is where the cumulative sum of the centred values is lowest (CUSUM).
    """
    num_lines = min(len(source), len(target))
    if num_lines < 2:
        return num_lines + 1
    lengths = np.array([[len(a), len(b)] for a, b in zip(source, target, strict=False)], dtype=np.float64)
    ratios = np.log1p(lengths[:, 0]) - np.log1p(lengths[:, 1])
    oddness = np.minimum(np.abs(ratios - np.median(ratios)), 2.0)
    if np.ptp(oddness) == 0:
        return num_lines + 1
    return int(np.argmin(np.cumsum(oddness - oddness.mean()))) + 2
