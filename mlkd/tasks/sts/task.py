"""Semantic textual similarity: do cosines rank sentence pairs, also across languages, as people do?

Shapes: N pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import Problem
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import load_each
from mlkd.tasks.data_sources import Origin, SourcedTask, language_problem
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, ItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items
from mlkd.tasks.sts.reading import StsSet, StsSource, hash_graded

_EMBEDDED_PAIRS = ("en-en", "en-de", "en-es", "en-ru", "en-zh", "de-de", "es-es", "ru-ru", "zh-zh")


@dataclass(kw_only=True, slots=True)
class StsTask(SourcedTask):
    """100 x Spearman correlation of cosine and human score, for each pair of languages.

    Placeholders of `path`, `gold_path`, `subset` and the columns: `{pair}` (en-de), `{first}` (en), `{second}` (de),
    `{track}` (track5.en-en, as SemEval-2017 names its files), and `{language}`, which names row-aligned files or
    subsets of one language each: sentence 1 is taken from the first language's, sentence 2 from the second's.
    A path without any is a wide TSV file for all pairs: columns `score`, `en1`, `en2`, `de1`, ...

    Rows after the last score are left out with a warning: half of SemEval's track 6 was never scored.

    Args:
        pairs: which sentence languages are compared.
        gold_path: file of one score a line beside a `path` without scores; empty where the scores are in the same file.
        first_column: a name, or a position from 0 in files without a header; None for `{first}1` in a wide file, 0
            beside a `gold_path`, and `sentence1` elsewhere.
        second_column: None for `{second}2` in a wide file, 1 beside a `gold_path`, and `sentence2` elsewhere.
        score_column: of the human score.

    Source:
        Cer et al. 2017, SemEval-2017 task 1; Reimers & Gurevych 2020, section 4.1; sentence-transformers,
        `EmbeddingSimilarityEvaluator`.
    """

    name: str = "sts"
    pairs: list[str] = field(default_factory=lambda: list(_EMBEDDED_PAIRS))
    gold_path: str = ""
    first_column: str | None = None
    second_column: str | None = None
    score_column: str = "score"

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self)
        if self.gold_path and not self.path:
            problems.append(Problem("E209", "needs path, the file of the sentences", where="gold_path"))
        if not self.pairs:
            problems.append(Problem("E204", "must name at least one pair such as en-de", where="pairs"))
        for position, pair in enumerate(self.pairs):
            where = f"pairs[{position}]"
            languages = pair.split("-")
            if len(languages) != 2:
                problems.append(Problem("E207", f"'{pair}' is no pair of languages such as en-de", where=where))
                continue
            found = [language_problem(language, where) for language in languages]
            problems += [problem for problem in found if problem is not None]
            if pair in self.pairs[:position]:
                problems.append(Problem("E204", f"'{pair}' is listed twice", where=where))
        return problems

    @property
    def is_wide(self) -> bool:
        """Whether one file holds all languages side by side."""
        return self.origin is Origin.files and "{" not in self.path

    @property
    def source(self) -> StsSource:
        """How the pairs of this task are read."""
        if self.gold_path:
            defaults = ("0", "1")
        else:
            defaults = ("{first}1", "{second}2") if self.is_wide else ("sentence1", "sentence2")
        first = defaults[0] if self.first_column is None else self.first_column
        second = defaults[1] if self.second_column is None else self.second_column
        return StsSource(self, self.gold_path, (first, second, self.score_column))

    def load(self) -> Any:
        """A list of StsSet in the order of `pairs`; every problem of every pair at once."""
        return load_each(self.pairs, self.source.read)

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[StsSet] = data
        for pairs in sets:
            yield from pairs.first
            yield from pairs.second

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[StsSet] = data
        vectors = TextVectors(encoder, self.texts(sets))
        item_scores: dict[str, ItemScores] = {}
        for pairs in sets:
            correlations = correlate(vectors.rows(pairs.first), vectors.rows(pairs.second), pairs.gold)
            item_scores |= {f"{pairs.pair}/{metric}": items for metric, items in correlations.items()}
        item_scores = with_means(item_scores)
        scores = scores_from_items(item_scores)
        return TaskResult(
            task=self.name,
            protocol="100 x Spearman of cosine",
            main="spearman",
            higher_is_better=True,
            data_sha256=hash_graded(sets),
            scores=scores,
            details={
                "undefined": [f"{score.language}/{score.metric}" for score in scores if score.value is None],
                "num_unscored": {pairs.pair: pairs.num_unscored for pairs in sets},
            },
            # Resampling a correlation costs the most of all; the seven others are there to be compared at a glance.
            item_scores={key: items for key, items in item_scores.items() if key.endswith("/spearman")},
        )


def similarities(first_ND: Tensor, second_ND: Tensor) -> dict[str, Tensor]:
    """(N,) similarities of row n of both sides by name: cosine, dot, and negative euclidean and manhattan distance."""
    normalize = torch.nn.functional.normalize
    difference = first_ND - second_ND
    return {
        "cosine": (normalize(first_ND, dim=1) * normalize(second_ND, dim=1)).sum(dim=1),
        "dot": (first_ND * second_ND).sum(dim=1),
        "euclidean": -(difference**2).sum(dim=1).sqrt(),
        "manhattan": -difference.abs().sum(dim=1),
    }


def correlate(first_ND: Tensor, second_ND: Tensor, gold: Sequence[float]) -> dict[str, ItemScores]:
    """Correlations of `gold` (N,) with the similarity of row n of both sides.

    Keys: `spearman` and `pearson` of the cosine, then `spearman_dot`, `pearson_dot`, `spearman_euclidean`, ...
    """
    return {
        f"{metric}{'' if name == 'cosine' else f'_{name}'}": CorrelationItemScores(
            values.double().numpy(), gold, rank=metric == "spearman"
        )
        for name, values in similarities(first_ND, second_ND).items()
        for metric in ("spearman", "pearson")
    }
