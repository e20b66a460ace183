"""Agreement: does the student, in its languages, find the same pairs similar as the teacher does in English?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlkd.errors import Problem, fail
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.scoring.item_scores import CorrelationSample, Sample
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, sample_scores
from mlkd.tasks.sources import Origin
from mlkd.tasks.sts.reading import StsSet
from mlkd.tasks.sts.task import StsTask, similarities

_ENGLISH_PAIR = "en-en"


@dataclass(frozen=True, slots=True)
class AgreementSet:
    """Row n of `translated` is row n of `english` with each side in the language of `translated.pair`."""

    translated: StsSet
    english: StsSet


@dataclass(kw_only=True, slots=True)
class AgreementTask(StsTask):
    """100 x Spearman correlation of the student's and the teacher's cosines over the same pairs of sentences.

    For the pair of languages en-de: the student's cosine of an English sentence 1 and a German sentence 2 against the
    teacher's cosine of both in English. No human score takes part, so it says how much of the teacher has arrived in a
    language, whatever the teacher is worth. Dimensions may differ.

    Data as for sts, where its languages are row-aligned: the embedded set, a wide file, or `{language}` templates.

    Source:
        The relation that Reimers & Gurevych 2020, section 2, train for: equal vectors in all languages give 100.
    """

    name: str = "agreement"

    @property
    def needs_teacher(self) -> bool:
        return True

    def _field_problems(self) -> list[Problem]:
        problems = StsTask._field_problems(self)
        if self.origin is not Origin.embedded and not (self.is_wide or self.source.is_by_language):
            what = "needs row-aligned languages: a wide file (columns en1, en2, de1, ...), or a name with {language}"
            problems.append(Problem("E204", what, where="path" if self.path else "subset"))
        return problems

    def load(self) -> Any:
        """A list of AgreementSet in the order of `pairs`; every problem of every pair at once."""
        english, *translated = load_each(dict.fromkeys([_ENGLISH_PAIR, *self.pairs]), self.source.read)
        by_pair = {pairs.pair: pairs for pairs in (english, *translated)}
        for pairs in translated:
            if pairs.gold != english.gold:
                what = f"the scores of '{pairs.pair}' ({len(pairs.gold)}) and English ({len(english.gold)}) differ"
                raise fail("E316", what, remedy="row n of every language must be the same pair of sentences")
        return [AgreementSet(by_pair[pair], english) for pair in self.pairs]

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[AgreementSet] = data
        for found in sets:
            yield from found.translated.first
            yield from found.translated.second

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        assert teacher is not None, "agreement needs a teacher"
        sets: list[AgreementSet] = data
        english = sets[0].english
        targets = TextVectors(teacher, [*english.first, *english.second])
        wanted_N = similarities(targets.rows(english.first), targets.rows(english.second))["cosine"].double().numpy()
        vectors = TextVectors(encoder, self.texts(sets))
        samples: dict[str, Sample] = {}
        for pairs in (found.translated for found in sets):
            cosine_N = similarities(vectors.rows(pairs.first), vectors.rows(pairs.second))["cosine"].double().numpy()
            samples[f"{pairs.pair}/spearman"] = CorrelationSample(cosine_N, wanted_N, rank=True)
            samples[f"{pairs.pair}/pearson"] = CorrelationSample(cosine_N, wanted_N, rank=False)
        samples = with_means(samples)
        scores = sample_scores(samples)
        return TaskResult(
            task=self.name,
            protocol="100 x Spearman of student's cosine and teacher's on English",
            main="spearman",
            higher_is_better=True,
            data_sha256=hash_rows(
                (found.translated.pair, *row)
                for found in sets
                for row in zip(
                    found.translated.first, found.translated.second, english.first, english.second, strict=True
                )
            ),
            scores=scores,
            details={"undefined": [f"{s.language}/{s.metric}" for s in scores if s.value is None]},
            samples={key: sample for key, sample in samples.items() if key.endswith("/spearman")},
        )
