"""Language bias: does an encoder prefer some languages, or pairs of them, once all are in one pool?

Shapes: N rows, L languages, Q queries at once, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlkd.errors import fail
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows
from mlkd.tasks.data_sources import named_language
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.parallel import ParallelSet, ParallelTask
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, ItemScores, MacroAverage, MeanItemScores
from mlkd.tasks.scoring.scores import Score, TaskResult, scores_from_items
from mlkd.tasks.sts.reading import StsSet, hash_graded
from mlkd.tasks.sts.task import StsTask, similarities

_BLOCK_BYTES = 2**26


@dataclass(kw_only=True, slots=True)
class JointStsTask(StsTask):
    """Spearman over the sentence pairs of all languages together (`joint`) against the mean of the languages' own
    (`separate`); `bias` is joint - separate.

    An encoder that gives, say, English pairs higher cosines than English-German pairs of the same meaning ranks well
    within each set and badly across them: its bias is negative.

    Source:
        Reimers & Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Trainer",
        section on language bias: expected (separate), actual (joint), difference (bias).
    """

    name: str = "sts_joint"

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[StsSet] = data
        vectors = TextVectors(encoder, self.texts(sets))
        cosines = {
            pairs.pair: similarities(vectors.rows(pairs.first), vectors.rows(pairs.second))["cosine"].double().numpy()
            for pairs in sets
        }
        parts = [CorrelationItemScores(cosines[pairs.pair], pairs.gold, rank=True) for pairs in sets]
        all_gold = [score for pairs in sets for score in pairs.gold]
        item_scores: dict[str, ItemScores] = {
            f"{pairs.pair}/separate": part for pairs, part in zip(sets, parts, strict=True)
        }
        item_scores["mean/separate"] = MacroAverage(parts)
        item_scores["mean/joint"] = CorrelationItemScores(np.concatenate(list(cosines.values())), all_gold, rank=True)
        separate, joint = item_scores["mean/separate"].value(), item_scores["mean/joint"].value()
        bias = None if separate is None or joint is None else joint - separate
        return TaskResult(
            task=self.name,
            protocol="100 x Spearman of cosine, all languages together",
            main="joint",
            higher_is_better=True,
            data_sha256=hash_graded(sets),
            scores=[*scores_from_items(item_scores), Score("mean", "bias", bias, len(all_gold))],
            item_scores=item_scores,
        )


@dataclass(frozen=True, slots=True)
class AlignedRows:
    """Row n of every language is the same sentence; no sentence occurs twice in a language.

    Args:
        texts: language -> rows, the source language first.
        num_left_out: rows that a language lacked, or that repeated a sentence of an earlier row.
    """

    texts: dict[str, list[str]]
    num_left_out: int


@dataclass(kw_only=True, slots=True)
class MixedPoolTask(ParallelTask):
    """P@1 where the candidates are in all languages at once (`mixed`) against a pool of one language (`separate`).

    For a query in one language and its translation in another, the candidates are the translation and, of all other
    rows, either the sentences in the translation's language or those in every language, the query's own included. The
    translation must be nearer than each of them; equal cosines do not count. Both are means over the other languages,
    keyed by the language of the query; `bias` is mixed - separate, at most 0: what sentences of other languages,
    above all the query's own, take away.

    Source:
        after Roy et al. 2020, "LAReQA: Language-Agnostic Answer Retrieval from a Multilingual Pool".
    """

    name: str = "mixed_pool"

    def load(self) -> Any:
        """An AlignedRows of the source language and all `languages`.

        Raises:
            MlkdError: E316 where the languages have fewer than two source sentences in common.
        """
        sets = ParallelTask.load(self)
        rows = align(sets, self.source_language)
        if len(rows.texts[self.source_language]) < 2:
            language = named_language(self.source_language)
            what = f"{', '.join(pairs.language for pairs in sets)} have fewer than two {language} sentences in common"
            raise fail("E316", what, remedy="use one row-aligned file of all languages")
        return rows

    def texts(self, data: Any) -> Iterator[str]:
        rows: AlignedRows = data
        for texts in rows.texts.values():
            yield from texts

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        rows: AlignedRows = data
        vectors = TextVectors(encoder, self.texts(rows))
        pool_LND = torch.stack([vectors.rows(texts) for texts in rows.texts.values()]).double()
        pool_LND = torch.nn.functional.normalize(pool_LND, dim=2)
        found = {language: mixed_hits(pool_LND, place) for place, language in enumerate(rows.texts)}
        # The same rows in every language: their mean over the languages is one value a row, not several item scores.
        separate_LN, mixed_LN = (np.stack([hits[kind] for hits in found.values()]) for kind in (0, 1))
        found["mean"] = (separate_LN.mean(axis=0), mixed_LN.mean(axis=0))
        item_scores: dict[str, ItemScores] = {}
        for language, (separate_N, mixed_N) in found.items():
            item_scores[f"{language}/mixed"] = MeanItemScores(mixed_N)
            item_scores[f"{language}/separate"] = MeanItemScores(separate_N)
            item_scores[f"{language}/bias"] = MeanItemScores(mixed_N - separate_N)
        return TaskResult(
            task=self.name,
            protocol=f"cosine top-1, pool of {len(rows.texts)} languages",
            main="mixed",
            higher_is_better=True,
            data_sha256=hash_rows([list(rows.texts), *zip(*rows.texts.values(), strict=True)]),
            scores=scores_from_items(item_scores),
            details={"num_left_out": rows.num_left_out},
            item_scores=item_scores,
        )


def align(sets: list[ParallelSet], source_language: str = "en") -> AlignedRows:
    """Rows whose source sentence every set has, in the order of the first set."""
    translations = [dict(zip(reversed(pairs.source), reversed(pairs.target), strict=True)) for pairs in sets]
    seen: list[set[str]] = [set() for _ in range(len(sets) + 1)]
    kept = []
    for source in sets[0].source:
        if all(source in known for known in translations):
            row = (source, *(known[source] for known in translations))
            if not any(text in texts for text, texts in zip(row, seen, strict=True)):
                kept.append(row)
                for text, texts in zip(row, seen, strict=True):
                    texts.add(text)
    languages = [source_language, *(pairs.language for pairs in sets)]
    texts_by_language = {language: [row[place] for row in kept] for place, language in enumerate(languages)}
    return AlignedRows(texts_by_language, max(len(pairs.source) for pairs in sets) - len(kept))


def mixed_hits(pool_LND: Tensor, place: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the other languages in which each sentence of language `place` finds its translation.

    Args:
        pool_LND: float64 unit rows.
        place: the queries' language.

    Returns:
        (N,) with the candidates in one language at a time, and (N,) with those of all languages.
    """
    num_languages, num_rows, _ = pool_LND.shape
    others = [language for language in range(num_languages) if language != place]
    step = max(1, _BLOCK_BYTES // (8 * num_languages * num_rows))
    separate, mixed = [], []
    for start in range(0, num_rows, step):
        rows_Q = torch.arange(start, min(start + step, num_rows))
        # Rounded to float32: what float64 sums in another order for equal vectors is equal again.
        similarity_LQN = (pool_LND[place, rows_Q] @ pool_LND.transpose(1, 2)).float()
        right_LQ = similarity_LQN[:, torch.arange(len(rows_Q)), rows_Q].clone()
        similarity_LQN[:, torch.arange(len(rows_Q)), rows_Q] = -torch.inf
        nearest_LQ = similarity_LQN.amax(dim=2)
        separate.append((right_LQ > nearest_LQ)[others].double().mean(dim=0))
        mixed.append((right_LQ > nearest_LQ.amax(dim=0))[others].double().mean(dim=0))
    return torch.cat(separate).numpy(), torch.cat(mixed).numpy()
