"""Semantic textual similarity: do cosines rank sentence pairs, also across languages, as people do?

Shapes: N pairs, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.data.reading import raise_first
from mlkd.errors import Problem
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import Score, TaskResult, hash_rows, load_each, mean_score
from mlkd.tasks.hub import clean_texts, read_hub_rows
from mlkd.tasks.intervals import spearman_interval
from mlkd.tasks.sources import (
    Origin,
    SourcedTask,
    check_embedded,
    fill_template,
    language_problem,
    read_columns,
)
from mlkd.tasks.vectors import TextVectors

_MAX_GOLD = 5.0
_EMBEDDED_PAIRS = ("en-en", "en-de", "en-es", "en-ru", "en-zh", "de-de", "es-es", "ru-ru", "zh-zh")


@dataclass(frozen=True, slots=True)
class StsSet:
    """Pair n is (`first[n]`, `second[n]`) with the human score `gold[n]` in [0, 5]; `pair` is e.g. `en-de`."""

    pair: str
    first: list[str]
    second: list[str]
    gold: list[float]


@dataclass(kw_only=True, slots=True)
class StsTask(SourcedTask):
    """100 x Spearman correlation of cosine and human score, for each pair of languages.

    Placeholders of `path`, `subset` and the columns: `{pair}` (en-de), `{first}` (en), `{second}` (de). A path without
    one is a wide TSV file for all pairs: columns `score`, `en1`, `en2`, `de1`, ...

    Args:
        pairs: which sentence languages are compared.
        first_column: None for `{first}1` in a wide file and `sentence1` elsewhere.
        second_column: None for `{second}2` in a wide file and `sentence2` elsewhere.
        score_column: name of the column with the human score.

    Source:
        Cer et al. 2017, SemEval-2017 task 1; Reimers & Gurevych 2020, section 4.1; sentence-transformers,
        `EmbeddingSimilarityEvaluator`.
    """

    name: str = "sts"
    pairs: list[str] = field(default_factory=lambda: list(_EMBEDDED_PAIRS))
    first_column: str | None = None
    second_column: str | None = None
    score_column: str = "score"

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self)
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

    def load(self) -> list[StsSet]:
        """All pairs of languages in the order of `pairs`; every problem of every pair at once."""
        return load_each(self.pairs, self._load_pair)

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[StsSet] = data
        for pairs in sets:
            yield from pairs.first
            yield from pairs.second

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[StsSet] = data
        vectors = TextVectors(encoder, self.texts(sets))
        scores, intervals = [], {}
        for pairs in sets:
            gold = np.asarray(pairs.gold, dtype=np.float64)
            correlations = correlate(vectors.rows(pairs.first), vectors.rows(pairs.second), gold)
            scores += [Score(pairs.pair, metric, value, len(gold)) for metric, value in correlations.items()]
            if (spearman := correlations["spearman"]) is not None:
                intervals[f"{pairs.pair}/spearman"] = spearman_interval(spearman, len(gold))
        metrics = dict.fromkeys(score.metric for score in scores)
        undefined = [f"{score.language}/{score.metric}" for score in scores if score.value is None]
        return TaskResult(
            task=self.name,
            protocol="100 x Spearman of cosine",
            main="spearman",
            higher_is_better=True,
            data_sha256=hash_rows(
                (pairs.pair, first, second, repr(gold))
                for pairs in sets
                for first, second, gold in zip(pairs.first, pairs.second, pairs.gold, strict=True)
            ),
            scores=scores + [mean_score(scores, metric) for metric in metrics],
            details={"intervals": intervals, "undefined": undefined},
        )

    def _load_pair(self, pair: str) -> StsSet:
        first_language, second_language = pair.split("-")
        names = {"pair": pair, "first": first_language, "second": second_language}
        if self.origin is Origin.embedded:
            from mlkd.data.embedded import LANGUAGES, graded_pairs

            for language in (first_language, second_language):
                check_embedded(language, ("en", *LANGUAGES))
            rows = graded_pairs(first_language, second_language)
            return StsSet(pair, [row[1] for row in rows], [row[2] for row in rows], [float(row[0]) for row in rows])
        is_wide = self.origin is Origin.files and "{" not in self.path
        defaults = ("{first}1", "{second}2") if is_wide else ("sentence1", "sentence2")
        columns = [
            fill_template(default if column is None else column, "column", **names)
            for column, default in zip((self.first_column, self.second_column), defaults, strict=True)
        ]
        columns.append(self.score_column)
        if self.origin is Origin.hub:
            subset = fill_template(self.subset, "subset", **names)
            where = f"{self.dataset}, {subset}"
            first, second, gold = read_hub_rows(self, subset, columns)
            first, second = clean_texts(first, where), clean_texts(second, where)
            places = [f"{where}, row {row}" for row in range(1, len(first) + 1)]
        else:
            path = fill_template(self.path, "path", **names)
            (first, second, gold), line_numbers = read_columns(path, columns)
            places = [f"{path}:{line}" for line in line_numbers]
        return StsSet(pair, first, second, _parse_gold(gold, places))


def correlate(
    first_ND: Tensor, second_ND: Tensor, gold: np.ndarray[Any, np.dtype[np.float64]]
) -> dict[str, float | None]:
    """100 x correlation of `gold` (N,) with the similarity of row n of both sides; None where one is constant.

    Keys: `spearman` and `pearson` of the cosine, and `spearman_dot`, `spearman_euclidean`, `spearman_manhattan`.
    """
    normalize = torch.nn.functional.normalize
    difference = first_ND - second_ND
    similarities = {
        "": (normalize(first_ND, dim=1) * normalize(second_ND, dim=1)).sum(dim=1),
        "_dot": (first_ND * second_ND).sum(dim=1),
        "_euclidean": -(difference**2).sum(dim=1).sqrt(),
        "_manhattan": -difference.abs().sum(dim=1),
    }
    correlations = {
        f"spearman{name}": _correlation(values, gold, by_rank=True) for name, values in similarities.items()
    }
    return {
        "spearman": correlations.pop("spearman"),
        "pearson": _correlation(similarities[""], gold, by_rank=False),
        **correlations,
    }


def _correlation(values: Tensor, gold: np.ndarray[Any, np.dtype[np.float64]], *, by_rank: bool) -> float | None:
    from scipy.stats import pearsonr, rankdata

    predicted = values.double().numpy()
    if len(gold) < 2 or np.ptp(predicted) == 0 or np.ptp(gold) == 0:
        return None
    if by_rank:
        predicted, gold = rankdata(predicted), rankdata(gold)
    return 100 * float(pearsonr(predicted, gold).statistic)


def _parse_gold(cells: list[Any], places: list[str]) -> list[float]:
    gold, problems = [], []
    for cell, place in zip(cells, places, strict=True):
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not 0.0 <= value <= _MAX_GOLD:
            problems.append(Problem("E314", f"score '{cell}' is no number in [0, 5]", place))
        gold.append(value)
    raise_first(problems, "scores of this set are no number in [0, 5]")
    return gold
