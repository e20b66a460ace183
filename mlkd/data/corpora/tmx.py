"""Corpora in TMX translation memories."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlkd.data.corpora.base import ParallelCorpus
from mlkd.data.formats.tmx import read_tmx
from mlkd.data.pairs import RawPairs
from mlkd.errors import Problem, did_you_mean


@dataclass(kw_only=True, slots=True)
class TmxCorpus(ParallelCorpus):
    """Translation units with both languages; units that lack one are left out and counted (`missing_language`).

    Args:
        path: template of the file, e.g. `data/en-{language}.tmx.gz`; may be one file for all languages.
        paths: files by language that the template does not fit (`+data.paths.de=...`).
    """

    path: str = ""
    paths: dict[str, str] = field(default_factory=dict)

    def _field_problems(self) -> list[Problem]:
        problems = []
        if any(language not in self.paths for language in self.languages):
            problems += self.template_problems("path", "'data/en-{language}.tmx.gz'")
        for language in self.paths:
            if language not in self.languages:
                what = f"'{language}' is not in languages.{did_you_mean(language, self.languages)}"
                problems.append(Problem("E204", what, "paths"))
        return problems

    def files(self) -> dict[str, list[Path]]:
        return {language: [self._path(language)] for language in self.languages}

    def _path(self, language: str) -> Path:
        return Path(self.paths.get(language) or self.filled("path", language))

    def read(self, language: str) -> RawPairs:
        return read_tmx(self._path(language), self.source_language, language)
