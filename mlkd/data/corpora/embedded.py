"""The embedded corpus: parallel sentences composed by the grammar of the package, no file and no network."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlkd.data.corpora.base import ParallelCorpus
from mlkd.data.pairs import RawPairs
from mlkd.errors import Problem, out_of_range


@dataclass(kw_only=True, slots=True)
class EmbeddedCorpus(ParallelCorpus):
    """English with German, Spanish, Russian or Chinese.

    Args:
        pairs_per_language: composed before duplicates leave and development pairs are held out.
        seed: another seed, other sentences.
    """

    languages: list[str] = field(default_factory=lambda: ["de", "es", "ru", "zh"])
    pairs_per_language: int = 20_000
    seed: int = 0

    def _field_problems(self) -> list[Problem]:
        from mlkd.demo_data import LANGUAGES

        problems = out_of_range(self, "pairs_per_language", ge=1)
        if self.source_language != "en":
            problems.append(Problem("E207", f"must be en here (got '{self.source_language}')", "source_language"))
        for index, language in enumerate(self.languages):
            if language not in LANGUAGES:
                what = f"the embedded corpus has no '{language}'; it has {', '.join(LANGUAGES)}"
                problems.append(Problem("E207", what, f"languages[{index}]", "choose another corpus: data=tsv"))
        return problems

    def read(self, language: str) -> RawPairs:
        from mlkd.demo_data import generate_pairs

        pairs = generate_pairs(language, self.pairs_per_language, self.seed)
        return RawPairs([source for source, _ in pairs], [target for _, target in pairs], f"embedded en-{language}")
