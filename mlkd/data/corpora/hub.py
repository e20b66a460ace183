"""A corpus of the Hugging Face hub, or a local folder of the same layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mlkd.data.corpora.base import ParallelCorpus
from mlkd.data.formats.tsv import clean_cells
from mlkd.data.hub import HubDataset
from mlkd.data.pairs import RawPairs
from mlkd.errors import Problem, did_you_mean, fail


@dataclass(kw_only=True, slots=True)
class HubCorpus(ParallelCorpus):
    """A dataset with one subset a language pair, such as `sentence-transformers/parallel-sentences-talks`.

    Args:
        dataset: its id, or a folder that holds the same files (`hf download --repo-type dataset ID --local-dir F`).
        subset: template of the subset (the hub's configuration); empty for a dataset that has none.
        subsets: subsets by language that the template does not fit (`+data.subsets.zh=en-zh-cn`).
        split: as the hub names it; a part as in `train[:500000]`.
        source_column: template of the source column; dots for nested columns (`translation.{source_language}`).
        target_column: template of the target column.
        revision: commit, tag or branch; None for the newest.
    """

    dataset: str = ""
    subset: str = "{source_language}-{language}"
    subsets: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    source_column: str = "english"
    target_column: str = "non_english"
    revision: str | None = None

    @property
    def hub(self) -> HubDataset:
        alternative = "choose a corpus in files: data=tsv, or data=embedded"
        return HubDataset(self.dataset, self.revision, "data", alternative, unknown_code="E301")

    def _field_problems(self) -> list[Problem]:
        example = "sentence-transformers/parallel-sentences-talks"
        problems = []
        if not self.dataset:
            problems.append(Problem("E205", "is required and not set", "dataset", f"for example: {example}"))
        for name in ("source_column", "target_column"):
            problems += self.template_problems(name, "non_english")
        if self.subset:
            problems += self.template_problems("subset", "'en-{language}'")
        for language in self.subsets:
            if language not in self.languages:
                what = f"'{language}' is not in languages.{did_you_mean(language, self.languages)}"
                problems.append(Problem("E204", what, "subsets"))
        return problems

    def check_files(self) -> None:
        self.hub.locate()

    def read(self, language: str) -> RawPairs:
        subset = self.subsets.get(language) or self.filled("subset", language)
        columns = [self.filled(name, language) for name in ("source_column", "target_column")]
        table, revision = self.hub.load(subset, self.split, columns)
        origin = self.hub.describe(subset, self.split, revision)
        cleaned: Counter[str] = Counter()
        sides = [_text_column(table, column, origin, cleaned) for column in columns]
        return RawPairs(sides[0], sides[1], origin, cleaned=+cleaned)


def _text_column(table: Any, column: str, origin: str, cleaned: Counter[str]) -> list[str]:
    kind = getattr(table.features[column], "dtype", type(table.features[column]).__name__)
    if kind not in ("string", "large_string", "string_view"):
        raise fail("E310", f"column '{column}' holds {kind}, not text", where=origin)
    values = table[column][:]
    cleaned["null"] += sum(value is None for value in values)
    return clean_cells([value or "" for value in values], cleaned)
