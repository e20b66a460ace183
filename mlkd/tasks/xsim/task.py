"""xsim and xsim++: the error rate of margin-based retrieval into English, hard negatives and all.

Shapes: N pairs, M candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from mlkd.data.formats.tsv import read_lines
from mlkd.errors import MlkdError, Problem, fail
from mlkd.knn.margins import Margin
from mlkd.knn.retrieval import Retrieval, retrieve
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.parallel import NearestTask, ParallelSet, ParallelTask, hash_sets
from mlkd.tasks.scoring.item_scores import MeanSample, Sample
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, sample_scores
from mlkd.tasks.xsim.reading import Augmented, read_augmented


@dataclass(frozen=True, slots=True)
class XsimData:
    """Translations of each language, and the hard negatives beside all of them (None: xsim without)."""

    sets: list[ParallelSet]
    augmented: Augmented | None


@dataclass(kw_only=True, slots=True)
class XsimTask(NearestTask):
    """Percent of sentences whose best-scored English candidate is not their translation; lower is better.

    A hit on an identical text counts. With augmented sentences (xsim++) the errors are broken down: `error_<kind>` for
    near copies of the right sentence, `error_misaligned` for all others; together they are `error`.

    Args:
        num_neighbours: k.
        margin: how cosines are weighed.
        english_path: file of English sentences, line-aligned with `path`, which then names the foreign files alone.
        augmented_path: English near copies, one a line; empty for xsim without hard negatives.
        error_types_path: JSON file that says what was changed in each near copy.

    Source:
        Heffernan et al. 2022, "Bitext Mining Using Distilled Sentence Representations for Low-Resource Languages",
        and LASER, source/xsim.py (xsim); Chen et al. 2023 (xsim++).
    """

    name: str = "xsim"
    num_neighbours: int = 4
    margin: Margin = field(default=Margin.ratio)
    english_path: str = ""
    augmented_path: str = ""
    error_types_path: str = ""

    def _field_problems(self) -> list[Problem]:
        problems = NearestTask._field_problems(self)
        if self.num_neighbours < 1:
            problems.append(Problem("E204", f"must be >= 1 (got {self.num_neighbours})", where="num_neighbours"))
        if bool(self.augmented_path) != bool(self.error_types_path):
            problems.append(Problem("E209", "augmented_path and error_types_path need each other"))
        if self.english_path and not self.path:
            problems.append(Problem("E209", "needs path: it is aligned with foreign files", where="english_path"))
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
        # A missing English file is the same problem for every language.
        problems = dict.fromkeys(problem for error in errors for problem in error.problems)
        if problems:
            raise MlkdError(problems)
        if augmented is not None:
            originals = {original for original, _ in augmented.kinds}
            for pairs in sets:
                if originals.isdisjoint(text.strip() for text in pairs.english):
                    what = f"no original sentence of it is among the English ones of '{pairs.language}'"
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
        english_texts = [*(text for pairs in loaded.sets for text in pairs.english), *augmented]
        foreign_texts = [text for pairs in loaded.sets for text in pairs.foreign]
        vectors = self.two_sides(encoder, teacher, english_texts, foreign_texts)
        samples: dict[str, Sample] = {}
        for pairs in loaded.sets:
            kinds = self._errors(pairs, loaded.augmented, *vectors)
            samples[f"{pairs.language}/error"] = MeanSample([kind is not None for kind in kinds])
            for name in loaded.augmented.all_kinds if loaded.augmented is not None else []:
                samples[f"{pairs.language}/error_{name}"] = MeanSample([kind == name for kind in kinds])
        samples = with_means(samples)
        variant = "xsim" if loaded.augmented is None else "xsim++"
        return TaskResult(
            task=self.name,
            protocol=self.named(
                f"{variant}, xx->en, k={self.num_neighbours}, {self.margin.value}, identical texts count"
            ),
            main="error",
            higher_is_better=False,
            data_sha256=_hash(loaded),
            scores=sample_scores(samples),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in loaded.sets}},
            samples=samples,
        )

    def _errors(
        self, pairs: ParallelSet, augmented: Augmented | None, english: TextVectors, foreign: TextVectors
    ) -> list[str | None]:
        """What is wrong with each sentence's best candidate; None where it is right, `misaligned` without kinds."""
        augmented = augmented or Augmented([], {})
        candidates = pairs.english + augmented.sentences
        forward, backward = self.search.both_ways(
            foreign.rows(pairs.foreign), english.rows(candidates), self.num_neighbours
        )
        best = retrieve(forward, backward, self.margin, Retrieval.forward)
        found_N = torch.empty(len(pairs.english), dtype=torch.int64)
        found_N[best.source] = best.target
        texts = [candidates[row] for row in found_N.tolist()]
        return [
            None if text == wanted else augmented.kind_of(wanted, text)
            for text, wanted in zip(texts, pairs.english, strict=True)
        ]

    def _load_language(self, language: str) -> ParallelSet:
        if not self.english_path:
            return ParallelTask._load_language(self, language)
        foreign_path = self._fill(self.path, "path", language)
        english, foreign = (text.lines for text in load_each([self.english_path, foreign_path], read_lines))
        if len(english) != len(foreign):
            what = f"line counts differ: {self.english_path} {len(english):,}, {foreign_path} {len(foreign):,}"
            raise fail("E316", what, remedy="line n of both files must be a translation of each other")
        full = [pair for pair in zip(english, foreign, strict=True) if pair[0].strip() and pair[1].strip()]
        if not full:
            raise fail("E303", f"no pair with text on both sides for '{language}'")
        return ParallelSet(language, [pair[0] for pair in full], [pair[1] for pair in full], len(english) - len(full))


def _hash(data: XsimData) -> str:
    if data.augmented is None:
        return hash_sets(data.sets)
    kinds = sorted((*pair, kind) for pair, kind in data.augmented.kinds.items())
    return hash_rows([(hash_sets(data.sets),), data.augmented.sentences, *kinds])
