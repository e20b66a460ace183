"""BUCC: find the translations planted in two monolingual corpora."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlkd.errors import Problem, fail
from mlkd.mining.margins import Margin
from mlkd.mining.neighbours import NeighbourSearch
from mlkd.mining.retrieval import Retrieval, ThresholdFit, apply_threshold, fit_threshold
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import Score, TaskResult, hash_rows, load_each, mean_score
from mlkd.tasks.bucc_protocols import BuccProtocol, MiningSettings, MiningSide, MiningSplit, Ranking, rank_pairs
from mlkd.tasks.bucc_reading import read_mining_files, read_mining_hub
from mlkd.tasks.sources import (
    Origin,
    SourcedTask,
    check_embedded,
    fill_template,
    language_problem,
)
from mlkd.tasks.vectors import TextVectors

_NUM_HISTOGRAM_BINS = 40


@dataclass(frozen=True, slots=True)
class BuccSet:
    """One pair of languages: the split that is scored, and the one its threshold is fitted on (None: the same)."""

    pair: str
    test: MiningSplit
    train: MiningSplit | None


@dataclass(kw_only=True, slots=True)
class BuccTask(SourcedTask):
    """F1 of mined pairs against the planted ones.

    Placeholders of `path`, `train_path` and `subset`: `{pair}` (de-en); and for the three files `{side}`: de and en
    (id TAB sentence, no header) and gold (source id TAB target id). A hub dataset has either one row of lists
    `sentence1`, `sentence2` and `gold` (pairs counted from 1), or a row for each gold pair without distractors.

    Args:
        pairs: languages of source and target.
        train_path: files of the split that the threshold is fitted on; empty for the scored split itself. The
            protocol then says `oracle`, else `fitted`.
        num_neighbours: k.
        margin: how cosines are weighed.
        retrieval: which best neighbours become pairs.
        protocol: whose numbers these are.
        search: how neighbours are searched.

    Source:
        Zweigenbaum et al. 2018, "Overview of the Third BUCC Shared Task"; Artetxe & Schwenk 2019.
    """

    name: str = "bucc"
    pairs: list[str] = field(default_factory=lambda: ["de-en", "es-en", "ru-en", "zh-en"])
    train_path: str = ""
    num_neighbours: int = 4
    margin: Margin = field(default=Margin.ratio)
    retrieval: Retrieval = field(default=Retrieval.max)
    protocol: BuccProtocol = field(default=BuccProtocol.laser)
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    def _field_problems(self) -> list[Problem]:
        problems = SourcedTask._field_problems(self)
        if not self.pairs:
            problems.append(Problem("E204", "must name at least one pair such as de-en", where="pairs"))
        for position, pair in enumerate(self.pairs):
            where = f"pairs[{position}]"
            languages = pair.split("-")
            if len(languages) != 2 or languages[0] == languages[1]:
                problems.append(Problem("E207", f"'{pair}' is no pair of two languages such as de-en", where=where))
                continue
            found = [language_problem(language, where) for language in languages]
            problems += [problem for problem in found if problem is not None]
        if self.num_neighbours < 1:
            problems.append(Problem("E204", f"must be >= 1 (got {self.num_neighbours})", where="num_neighbours"))
        if self.protocol is BuccProtocol.st and (self.margin, self.retrieval) != (Margin.ratio, Retrieval.max):
            what = f"is margin=ratio and retrieval=max (got {self.margin.value}, {self.retrieval.value})"
            problems.append(Problem("E209", what, where="protocol=st", remedy="use protocol=laser"))
        if self.train_path and not self.path:
            problems.append(Problem("E209", "needs path: a threshold is fitted for files only", where="train_path"))
        return problems

    def load(self) -> list[BuccSet]:
        """All pairs of languages in the order of `pairs`; every problem of every file at once."""
        return load_each(self.pairs, self._load_pair)

    def texts(self, data: Any) -> Iterator[str]:
        sets: list[BuccSet] = data
        for pairs in sets:
            yield from _split_texts(pairs.test)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[BuccSet] = data
        settings = MiningSettings(self.num_neighbours, self.margin, self.retrieval, self.protocol, self.search)
        scores, mined = [], {}
        for pairs in sets:
            # One pair of corpora at a time: together their vectors could exceed the memory.
            ranking = _rank(pairs.test, encoder, settings)
            oracle = fit_threshold(ranking.score, ranking.is_correct, ranking.num_gold)
            result = oracle
            if pairs.train is not None:
                fitted = _rank(pairs.train, encoder, settings)
                threshold = fit_threshold(fitted.score, fitted.is_correct, fitted.num_gold).threshold
                result = apply_threshold(ranking.score, ranking.is_correct, ranking.num_gold, threshold)
            elif self.protocol is BuccProtocol.laser:
                result = apply_threshold(ranking.score, ranking.is_correct, ranking.num_gold, oracle.threshold)
            scores += _scores(pairs.pair, result, ranking.num_gold)
            if pairs.train is not None:
                scores.append(Score(pairs.pair, "oracle_f1", 100 * oracle.f1, ranking.num_gold))
            mined[pairs.pair] = _describe(ranking, result)
        metrics = dict.fromkeys(score.metric for score in scores)
        label = "fitted" if self.train_path else "oracle"
        return TaskResult(
            task=self.name,
            protocol=f"{label}, {self.protocol.value}, k={self.num_neighbours}, {self.margin.value},"
            f" {self.retrieval.value}",
            main="f1",
            higher_is_better=True,
            data_sha256=hash_rows(_rows_to_hash(sets)),
            scores=scores + [mean_score(scores, metric) for metric in metrics],
            details={"threshold_from": label, "mining": mined},
        )

    def _load_pair(self, pair: str) -> BuccSet:
        train = read_mining_files(self.train_path, "train_path", pair) if self.train_path else None
        return BuccSet(pair, self._load_split(pair), train)

    def _load_split(self, pair: str) -> MiningSplit:
        if self.origin is Origin.files:
            return read_mining_files(self.path, "path", pair)
        if self.origin is Origin.hub:
            subset = fill_template(self.subset, "subset", pair=pair)
            return read_mining_hub(self, subset)
        from mlkd.data.embedded import LANGUAGES, mining_set

        language, english = pair.split("-")
        check_embedded(language, LANGUAGES)
        if english != "en":
            raise fail("E207", f"the embedded set pairs languages with en, not with '{english}'", where=pair)
        mining = mining_set(language)
        source, target = (
            MiningSide([row[0] for row in rows], [row[1] for row in rows]) for rows in (mining.source, mining.target)
        )
        return MiningSplit(source, target, list(mining.gold))


def _rank(split: MiningSplit, encoder: Encoder, settings: MiningSettings) -> Ranking:
    vectors = TextVectors(encoder, _split_texts(split))
    return rank_pairs(split, vectors.rows(split.source.texts), vectors.rows(split.target.texts), settings)


def _split_texts(split: MiningSplit) -> Iterator[str]:
    yield from split.source.texts
    yield from split.target.texts


def _scores(pair: str, result: ThresholdFit, num_gold: int) -> list[Score]:
    values = {"f1": result.f1, "precision": result.precision, "recall": result.recall}
    return [Score(pair, metric, 100 * value, num_gold) for metric, value in values.items()]


def _describe(ranking: Ranking, result: ThresholdFit) -> dict[str, Any]:
    """Threshold (None where nothing is kept) and histograms of the scores of right and wrong pairs."""
    threshold = result.threshold if result.threshold != float("inf") else None
    if len(ranking.score) == 0:
        return {"threshold": threshold, "edges": [], "true": [], "false": []}
    low, high = float(ranking.score.min()), float(ranking.score.max())
    edges = torch.linspace(low, high if high > low else low + 1, _NUM_HISTOGRAM_BINS + 1)
    right, wrong = (
        torch.histogram(ranking.score[chosen], edges).hist.int().tolist()
        for chosen in (ranking.is_correct, ~ranking.is_correct)
    )
    return {"threshold": threshold, "edges": edges.tolist(), "true": right, "false": wrong}


def _rows_to_hash(sets: Sequence[BuccSet]) -> Iterator[tuple[str, ...]]:
    for pairs in sets:
        for split in (pairs.test, pairs.train):
            if split is None:
                continue
            yield (pairs.pair,)
            yield from zip(split.source.ids, split.source.texts, strict=True)
            yield from zip(split.target.ids, split.target.texts, strict=True)
            yield from split.gold
