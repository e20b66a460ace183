"""Agreement: does the student, in its languages, find the same pairs similar as the teacher does in its own?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlkd.errors import Problem, fail
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.data_sources import Origin, language_problem, named_language
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, ItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items
from mlkd.tasks.sts.reading import StsSet
from mlkd.tasks.sts.task import StsTask, similarities


@dataclass(frozen=True, slots=True)
class AgreementSet:
    """Row n of `translated` is row n of `source` with each side in the language of `translated.pair`."""

    translated: StsSet
    source: StsSet


@dataclass(kw_only=True, slots=True)
class AgreementTask(StsTask):
    """100 x Spearman correlation of the student's and the teacher's cosines over the same pairs of sentences.

    For the pair of languages en-de: the student's cosine of an English sentence 1 and a German sentence 2 against the
    teacher's cosine of both in the source language, English. No human score takes part, so it says how much of the
    teacher has arrived in a language, whatever the teacher is worth. Dimensions may differ.

    Data as for sts, where its languages are row-aligned: the embedded set, a wide file, or `{language}` templates.

    Args:
        source_language: the one that the teacher encodes.

    Source:
        The relation that Reimers & Gurevych 2020, section 2, train for: equal vectors in all languages give 100.
    """

    name: str = "agreement"
    source_language: str = "en"

    @property
    def needs_teacher(self) -> bool:
        return True

    def _field_problems(self) -> list[Problem]:
        problems = StsTask._field_problems(self)
        problem = language_problem(self.source_language, "source_language")
        problems += [problem] if problem is not None else []
        if self.origin is not Origin.embedded and not (self.is_wide or self.source.is_by_language):
            what = "needs row-aligned languages: a wide file (columns en1, en2, de1, ...), or a name with {language}"
            problems.append(Problem("E204", what, where="path" if self.path else "subset"))
        return problems

    def load(self) -> Any:
        """A list of AgreementSet in the order of `pairs`; every problem of every pair at once."""
        source_pair = f"{self.source_language}-{self.source_language}"
        source, *translated = load_each(dict.fromkeys([source_pair, *self.pairs]), self.source.read)
        by_pair = {pairs.pair: pairs for pairs in (source, *translated)}
        for pairs in translated:
            if pairs.gold != source.gold:
                language = named_language(self.source_language)
                what = f"the scores of '{pairs.pair}' ({len(pairs.gold)}) and {language} ({len(source.gold)}) differ"
                raise fail("E316", what, remedy="row n of every language must be the same pair of sentences")
        return [AgreementSet(by_pair[pair], source) for pair in self.pairs]

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[AgreementSet] = data
        for found in sets:
            yield from found.translated.first
            yield from found.translated.second

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        assert teacher is not None, "agreement needs a teacher"
        sets: list[AgreementSet] = data
        source = sets[0].source
        targets = TextVectors(teacher, [*source.first, *source.second])
        wanted_N = similarities(targets.rows(source.first), targets.rows(source.second))["cosine"].double().numpy()
        vectors = TextVectors(encoder, self.texts(sets))
        item_scores: dict[str, ItemScores] = {}
        for pairs in (found.translated for found in sets):
            cosine_N = similarities(vectors.rows(pairs.first), vectors.rows(pairs.second))["cosine"].double().numpy()
            item_scores[f"{pairs.pair}/spearman"] = CorrelationItemScores(cosine_N, wanted_N, rank=True)
            item_scores[f"{pairs.pair}/pearson"] = CorrelationItemScores(cosine_N, wanted_N, rank=False)
        item_scores = with_means(item_scores)
        scores = scores_from_items(item_scores)
        return TaskResult(
            task=self.name,
            protocol=f"100 x Spearman of student's cosine and teacher's on {named_language(self.source_language)}",
            main="spearman",
            higher_is_better=True,
            data_sha256=hash_rows(
                (found.translated.pair, *row)
                for found in sets
                for row in zip(
                    found.translated.first, found.translated.second, source.first, source.second, strict=True
                )
            ),
            scores=scores,
            details={"undefined": [f"{s.language}/{s.metric}" for s in scores if s.value is None]},
            item_scores={key: items for key, items in item_scores.items() if key.endswith("/spearman")},
        )
