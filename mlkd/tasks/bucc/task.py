"""BUCC: find the translations planted in two monolingual corpora."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from mlkd.data.path_templates import fill_template
from mlkd.errors import Problem, out_of_range
from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.knn.retrieval import Retrieval
from mlkd.models.encoder import Encoder
from mlkd.tasks.base import hash_rows, load_each
from mlkd.tasks.bucc.protocols import BuccProtocol, MiningSettings, MiningSide, MiningSplit, Ranking, rank_pairs
from mlkd.tasks.bucc.reading import read_mining_files, read_mining_hub
from mlkd.tasks.bucc.results import candidate_table, describe_ranking, f1_item_scores, kept_by_rank, kept_from
from mlkd.tasks.bucc.threshold import fit_threshold
from mlkd.tasks.data_sources import (
    Origin,
    SourcedTask,
    check_embedded,
    language_problem,
)
from mlkd.tasks.distinct_texts import TextVectors
from mlkd.tasks.scoring.item_scores import ItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items


@dataclass(frozen=True, slots=True)
class BuccSet:
    """One pair of languages: the split that is scored, and the one its threshold is fitted on (None: the same)."""

    pair: str
    test: MiningSplit
    train: MiningSplit | None


@dataclass(frozen=True, slots=True)
class _MiningOutcome:
    """Ranked pairs, those kept, (P,) bool, and those an oracle's threshold keeps where another one was applied."""

    ranking: Ranking
    threshold: float
    kept: Tensor
    oracle_threshold: float
    kept_by_oracle: Tensor | None


@dataclass(kw_only=True, slots=True)
class BuccTask(SourcedTask):
    """F1 of mined pairs against the planted ones, and the pairs themselves as a table.

    With `train_path` the scores f1, precision and recall are at the threshold that is best on the training split, and
    oracle_f1, oracle_precision and oracle_recall at the one that is best on the scored split itself; without, the
    former are the oracle's. The protocol says `fitted` or `oracle`.

    The table of a pair of languages, which an evaluation writes as `<system>/<task>.<pair>.tsv`, holds every pair that
    can be scored, best first, with the columns score, source_id, target_id, source, target, is_gold and is_kept (1 from
    the threshold on).

    Placeholders of `path`, `train_path` and `subset`: `{pair}` (de-en); and for the three files `{side}`: de and en
    (id TAB sentence, no header) and gold (source id TAB target id). A hub dataset has either one row of lists
    `sentence1`, `sentence2` and `gold` (pairs counted from 1), or a row for each gold pair without distractors.

    Args:
        pairs: languages of source and target.
        train_path: files of the split that the threshold is fitted on; empty for the scored split itself.
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
        problems += out_of_range(self, "num_neighbours", ge=1)
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
        for split in (split for pairs in sets for split in (pairs.test, pairs.train) if split is not None):
            yield from _split_texts(split)

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[BuccSet] = data
        item_scores: dict[str, ItemScores] = {}
        num_gold, tables, mined = {}, {}, {}
        for pairs in sets:
            found = self._mine(pairs, encoder)
            for prefix, kept in (("", found.kept), ("oracle_", found.kept_by_oracle)):
                if kept is not None:
                    counted = f1_item_scores(pairs.test, found.ranking, kept)
                    item_scores |= {f"{pairs.pair}/{prefix}{metric}": items for metric, items in counted.items()}
            num_gold[pairs.pair] = found.ranking.num_gold
            tables[pairs.pair] = candidate_table(pairs.test, found.ranking, found.kept)
            mined[pairs.pair] = describe_ranking(found.ranking, found.threshold, found.oracle_threshold)
        item_scores = with_means(item_scores)
        counts = {**num_gold, "mean": sum(num_gold.values())}
        label = "fitted" if self.train_path else "oracle"
        return TaskResult(
            task=self.name,
            protocol=f"{label}, {self.protocol.value}, k={self.num_neighbours}, {self.margin.value},"
            f" {self.retrieval.value}",
            main="f1",
            higher_is_better=True,
            data_sha256=hash_rows(_rows_to_hash(sets)),
            scores=[replace(score, count=counts[score.language]) for score in scores_from_items(item_scores)],
            details={"threshold_from": label, "mining": mined},
            item_scores=item_scores,
            tables=tables,
        )

    def _mine(self, pairs: BuccSet, encoder: Encoder) -> _MiningOutcome:
        # One pair of corpora at a time: together their vectors could exceed the memory.
        ranking = self._rank(pairs.test, encoder)
        oracle = fit_threshold(ranking.score, ranking.is_correct, ranking.num_gold)
        by_rank = self.protocol is BuccProtocol.st
        kept_by_oracle = kept_by_rank(ranking, oracle) if by_rank else kept_from(ranking, oracle.threshold)
        if pairs.train is None:
            return _MiningOutcome(ranking, oracle.threshold, kept_by_oracle, oracle.threshold, None)
        fitted = self._rank(pairs.train, encoder)
        threshold = fit_threshold(fitted.score, fitted.is_correct, fitted.num_gold).threshold
        return _MiningOutcome(ranking, threshold, kept_from(ranking, threshold), oracle.threshold, kept_by_oracle)

    def _rank(self, split: MiningSplit, encoder: Encoder) -> Ranking:
        settings = MiningSettings(self.num_neighbours, self.margin, self.retrieval, self.protocol, self.search)
        vectors = TextVectors(encoder, _split_texts(split))
        return rank_pairs(split, vectors.rows(split.source.texts), vectors.rows(split.target.texts), settings)

    def _load_pair(self, pair: str) -> BuccSet:
        train = read_mining_files(self.train_path, "train_path", pair) if self.train_path else None
        return BuccSet(pair, self._load_split(pair), train)

    def _load_split(self, pair: str) -> MiningSplit:
        if self.origin is Origin.files:
            return read_mining_files(self.path, "path", pair)
        if self.origin is Origin.hub:
            subset = fill_template(self.subset, "subset", pair=pair)
            return read_mining_hub(self, subset)
        from mlkd.demo_data import LANGUAGES, mining_set

        languages = pair.split("-")
        for language in languages:
            check_embedded(language, ("en", *LANGUAGES))
        mining = mining_set(*languages)
        source, target = (
            MiningSide([row[0] for row in rows], [row[1] for row in rows]) for rows in (mining.source, mining.target)
        )
        return MiningSplit(source, target, list(mining.gold))


def _split_texts(split: MiningSplit) -> Iterator[str]:
    yield from split.source.texts
    yield from split.target.texts


def _rows_to_hash(sets: Sequence[BuccSet]) -> Iterator[tuple[str, ...]]:
    for pairs in sets:
        for split in (pairs.test, pairs.train):
            if split is None:
                continue
            yield (pairs.pair,)
            yield from zip(split.source.ids, split.source.texts, strict=True)
            yield from zip(split.target.ids, split.target.texts, strict=True)
            yield from split.gold
