"""xsim and xsim++: the error rate of margin-based retrieval into the source language, hard negatives and all.

Shapes: N pairs, M candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from mlkd.errors import MlkdError, Problem, fail, out_of_range
from mlkd.knn.margins import Margin
from mlkd.knn.retrieval import Retrieval, retrieve
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows
from mlkd.tasks.data_sources import named_language
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.parallel import (
    NearestTask,
    ParallelSet,
    ParallelTask,
    hash_sets,
    read_aligned_lines,
    without_empty,
)
from mlkd.tasks.scoring.item_scores import ItemScores, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items
from mlkd.tasks.xsim.reading import Augmented, read_augmented


@dataclass(frozen=True, slots=True)
class XsimData:
    """Translations of each language, and the hard negatives beside all of them (None: xsim without)."""

    sets: list[ParallelSet]
    augmented: Augmented | None


@dataclass(kw_only=True, slots=True)
class XsimTask(NearestTask):
    """Error rate: percent of sentences whose best-scored candidate, in the source language, is not their translation.

    A hit on an identical text counts. With augmented sentences (xsim++) the errors are broken down: `error_<kind>` for
    near copies of the right sentence, `error_misaligned` for all others; together they are `error`.

    Args:
        num_neighbours: k.
        margin: how cosines are weighed.
        source_path: file of source sentences, line-aligned with `path`, which then names the target files alone.
        augmented_path: near copies of source sentences, one a line; empty for xsim without hard negatives.
        error_types_path: JSON file that says what was changed in each near copy.

    Source:
        Heffernan et al. 2022, "Bitext Mining Using Distilled Sentence Representations for Low-Resource Languages",
        and LASER, source/xsim.py (xsim); Chen et al. 2023 (xsim++).
    """

    name: str = "xsim"
    num_neighbours: int = 4
    margin: Margin = field(default=Margin.ratio)
    source_path: str = ""
    augmented_path: str = ""
    error_types_path: str = ""

    def _field_problems(self) -> list[Problem]:
        problems = NearestTask._field_problems(self)
        problems += out_of_range(self, "num_neighbours", ge=1)
        if bool(self.augmented_path) != bool(self.error_types_path):
            problems.append(Problem("E209", "augmented_path and error_types_path need each other"))
        if self.source_path and not self.path:
            problems.append(Problem("E209", "needs path: it is aligned with target files", where="source_path"))
        return problems

    def load(self) -> Any:
        """An XsimData: all sets in the order of `languages`, and the augmented sentences; every problem at once."""
        sets, augmented, errors = [], None, []
        try:
            sets = ParallelTask.load(self)
        except MlkdError as error:
            errors.append(error)
        try:
            if self.augmented_path:
                augmented = read_augmented(self.augmented_path, self.error_types_path)
        except MlkdError as error:
            errors.append(error)
        # A missing source file is the same problem for every language.
        problems = dict.fromkeys(problem for error in errors for problem in error.problems)
        if problems:
            raise MlkdError(problems)
        if augmented is not None:
            originals = {original for original, _ in augmented.kinds}
            for pairs in sets:
                if originals.isdisjoint(text.strip() for text in pairs.source):
                    language = named_language(self.source_language)
                    what = f"no original sentence of it is among the {language} ones of '{pairs.language}'"
                    raise fail("E316", what, where=self.error_types_path)
        return XsimData(sets, augmented)

    def texts(self, data: Any) -> Iterator[str]:
        loaded: XsimData = data
        yield from ParallelTask.texts(self, loaded.sets)
        if loaded.augmented is not None:
            yield from loaded.augmented.sentences

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        loaded: XsimData = data
        augmented = loaded.augmented.sentences if loaded.augmented is not None else []
        source_texts = [*(text for pairs in loaded.sets for text in pairs.source), *augmented]
        target_texts = [text for pairs in loaded.sets for text in pairs.target]
        vectors = self.two_sides(encoder, teacher, source_texts, target_texts)
        item_scores: dict[str, ItemScores] = {}
        for pairs in loaded.sets:
            kinds = self._errors(pairs, loaded.augmented, *vectors)
            item_scores[f"{pairs.language}/error"] = MeanItemScores([kind is not None for kind in kinds])
            for name in loaded.augmented.all_kinds if loaded.augmented is not None else []:
                item_scores[f"{pairs.language}/error_{name}"] = MeanItemScores([kind == name for kind in kinds])
        item_scores = with_means(item_scores)
        variant = "xsim" if loaded.augmented is None else "xsim++"
        settings = f"xx->{self.source_language}, k={self.num_neighbours}, {self.margin.value}"
        return TaskResult(
            task=self.name,
            protocol=self.named(f"{variant}, {settings}, identical texts count"),
            main="error",
            higher_is_better=False,
            data_sha256=_hash(loaded),
            scores=scores_from_items(item_scores),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in loaded.sets}},
            item_scores=item_scores,
        )

    def _errors(
        self, pairs: ParallelSet, augmented: Augmented | None, source: TextVectors, target: TextVectors
    ) -> list[str | None]:
        """What is wrong with each sentence's best candidate; None where it is right, `misaligned` without kinds."""
        augmented = augmented or Augmented([], {})
        candidates = pairs.source + augmented.sentences
        forward, backward = self.search.both_ways(
            target.rows(pairs.target), source.rows(candidates), self.num_neighbours
        )
        best = retrieve(forward, backward, self.margin, Retrieval.forward)
        found_N = torch.empty(len(pairs.source), dtype=torch.int64)
        found_N[best.source] = best.target
        texts = [candidates[row] for row in found_N.tolist()]
        return [
            None if text == wanted else augmented.kind_of(wanted, text)
            for text, wanted in zip(texts, pairs.source, strict=True)
        ]

    def _load_language(self, language: str) -> ParallelSet:
        if not self.source_path:
            return ParallelTask._load_language(self, language)
        source, target = read_aligned_lines(self.source_path, self._fill(self.path, "path", language))
        return without_empty(language, source, target)


def _hash(data: XsimData) -> str:
    if data.augmented is None:
        return hash_sets(data.sets)
    kinds = sorted((*pair, kind) for pair, kind in data.augmented.kinds.items())
    return hash_rows([(hash_sets(data.sets),), data.augmented.sentences, *kinds])
