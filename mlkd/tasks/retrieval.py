"""Large retrieval: precision at 1 both ways among up to millions of candidates, in bounded memory.

Shapes: N pairs, U distinct texts of a side.
"""

from __future__ import annotations

import enum
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlkd.errors import Problem
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.models.encoder import Encoder
from mlkd.tasks.memory_mapped import DistinctTexts, VectorDtype, encode_to_file, nearest_both_ways_on_disk
from mlkd.tasks.parallel import ParallelSet, ParallelTask, hash_sets
from mlkd.tasks.scoring.item_scores import ItemScores, MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items


class HitCriterion(enum.Enum):
    """When the nearest candidate is right: its text is the wanted one, wherever it stands; or it is the same line."""

    identical_text = "identical_text"
    same_line = "same_line"


@dataclass(kw_only=True, slots=True)
class RetrievalTask(ParallelTask):
    """P@1 of each source sentence among all translations (`en->xx`), of each translation among all source sentences
    (`xx->en`), and their mean (`p@1`).

    Texts are encoded once each. Their vectors lie in a file rather than in memory, which holds two blocks of them; the
    texts themselves are in memory, about 2 GB for ten million sentences.

    Args:
        hit: when a found candidate is right.
        distinct_pairs: leave out pairs that repeat an earlier one.
        vectors: number format of the file.
        vectors_dir: folder for the file, which is removed afterwards; empty for the system's temporary folder.
        search: how neighbours are searched.

    Source:
        Guo et al. 2018, "Effective Parallel Corpus Mining using Bilingual Sentence Embeddings"; Feng et al. 2022,
        "Language-agnostic BERT Sentence Embedding" (the UN task).
    """

    needs_uncached: ClassVar[bool] = True

    name: str = "retrieval"
    hit: HitCriterion = field(default=HitCriterion.identical_text)
    distinct_pairs: bool = False
    vectors: VectorDtype = field(default=VectorDtype.fp32)
    vectors_dir: str = ""
    search: NeighbourSearch = field(default_factory=NeighbourSearch)

    def _field_problems(self) -> list[Problem]:
        problems = ParallelTask._field_problems(self)
        if self.vectors_dir and not Path(self.vectors_dir).is_dir():
            problems.append(Problem("E204", f"'{self.vectors_dir}' is no folder", where="vectors_dir"))
        return problems

    def load(self) -> list[ParallelSet]:
        """All sets in the order of `languages`, repeated pairs left out where the task says so."""
        sets = ParallelTask.load(self)
        return [_distinct(pairs) for pairs in sets] if self.distinct_pairs else sets

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        sets: list[ParallelSet] = data
        item_scores: dict[str, ItemScores] = {}
        for pairs in sets:
            source_hits, target_hits = self._hits(pairs, encoder)
            item_scores[f"{pairs.language}/{self.source_language}->xx"] = MeanItemScores(source_hits)
            item_scores[f"{pairs.language}/xx->{self.source_language}"] = MeanItemScores(target_hits)
            item_scores[f"{pairs.language}/p@1"] = MeanItemScores((source_hits + target_hits) / 2)
        item_scores = with_means(item_scores)
        counted = "identical texts count" if self.hit is HitCriterion.identical_text else "only the same line counts"
        vectors = "" if self.vectors is VectorDtype.fp32 else f", {self.vectors.value} vectors"
        repeated = ", distinct pairs" if self.distinct_pairs else ""
        return TaskResult(
            task=self.name,
            protocol=f"cosine top-1, {counted}{repeated}{vectors}",
            main="p@1",
            higher_is_better=True,
            data_sha256=hash_sets(sets),
            scores=scores_from_items(item_scores),
            details={"num_empty": {pairs.language: pairs.num_empty for pairs in sets}},
            item_scores=item_scores,
        )

    def _hits(self, pairs: ParallelSet, encoder: Encoder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """1 where a sentence finds its translation, else 0, for the source and the target sentences, (N,) each."""
        source, target = DistinctTexts(pairs.source), DistinctTexts(pairs.target)
        with tempfile.TemporaryDirectory(dir=self.vectors_dir or None, prefix="mlkd-vectors-") as folder:
            source_file = encode_to_file(encoder, source.texts, Path(folder) / "source", self.vectors)
            target_file = encode_to_file(encoder, target.texts, Path(folder) / "target", self.vectors)
            of_source, of_target = nearest_both_ways_on_disk(self.search, source_file, target_file)
            # Unmapped before the folder goes: some systems refuse to remove a file that is mapped.
            del source_file, target_file
        return (
            self._is_hit(of_source[source.row_of_line], target),
            self._is_hit(of_target[target.row_of_line], source),
        )

    def _is_hit(self, found_N: NDArray[np.int64], wanted: DistinctTexts) -> NDArray[np.float64]:
        if self.hit is HitCriterion.identical_text:
            is_hit: NDArray[np.bool_] = found_N == wanted.row_of_line
        else:
            is_hit = wanted.first_line[found_N] == np.arange(len(found_N))
        return is_hit.astype(np.float64)


def _distinct(pairs: ParallelSet) -> ParallelSet:
    kept = dict.fromkeys(zip(pairs.source, pairs.target, strict=True))
    return ParallelSet(pairs.language, [pair[0] for pair in kept], [pair[1] for pair in kept], pairs.num_empty)
