"""Ranking terms: each positive must be more similar than the negatives, in each direction's similarity matrix.

Shapes: B pairs, R of their rows, C = B + K columns, K further negatives, D dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.negatives import Candidates, Direction, NegativePool, excluded_candidates
from mlkd.losses.similarity_matrices import MAX_ENTRIES, cosine_matrix, in_row_blocks
from mlkd.losses.term import LossTerm, TermContext, TermFunction


@dataclass(kw_only=True, slots=True)
class RankingTerm(LossTerm):
    """A ranking objective (contrastive loss); what all of them share is the choice of candidates and negatives.

    Negatives are the other pairs of the batch (of all devices), and what the fields add.

    Args:
        candidates: see Candidates.
        mask_same_source: leave pairs that share their source text out of each other's negatives.
        hard_negatives: mined negatives a pair, >= 0: near source texts, in the batch as their translations where the
            candidates are student vectors, and as teacher vectors where they are teacher vectors.
        teacher_negatives: further teacher vectors that are negatives of the whole batch, >= 0.
        teacher_negatives_from: see NegativePool.
    """

    candidates: Candidates = Candidates.student
    mask_same_source: bool = True
    hard_negatives: int = 0
    teacher_negatives: int = 0
    teacher_negatives_from: NegativePool = NegativePool.queue

    def __post_init__(self) -> None:
        problems = self.range_problems()
        if problems:
            raise MlkdError(problems)

    def range_problems(self) -> list[Problem]:
        problems = out_of_range(self, "hard_negatives", "teacher_negatives", ge=0)
        if self.teacher_negatives > 0 and not self.has_teacher_candidates:
            what = f"needs candidates=teacher or candidates=both (got candidates={self.candidates.name})"
            problems.append(Problem("E209", what, "teacher_negatives", "set teacher_negatives=0"))
        return problems

    def build(self, context: TermContext) -> TermFunction:
        return self

    @property
    def needs_second_dropout_pass(self) -> bool:
        return self.candidates is Candidates.dropout

    @property
    def num_hard_negatives(self) -> int:
        return self.hard_negatives

    @property
    def has_student_candidates(self) -> bool:
        return self.candidates is not Candidates.teacher

    @property
    def has_teacher_candidates(self) -> bool:
        return self.candidates in (Candidates.teacher, Candidates.both)

    @property
    def num_teacher_negatives(self) -> int:
        return self.teacher_negatives

    @property
    def negative_pool(self) -> NegativePool:
        return self.teacher_negatives_from

    @property
    def compares_dimensions(self) -> bool:
        return self.has_teacher_candidates

    def __call__(self, vectors: PairVectors) -> Tensor:
        """The term's raw value, a scalar."""
        losses = [
            in_row_blocks(partial(self.loss_of_rows, vectors, direction), direction.num_rows, direction.num_columns)
            for direction in self.directions(vectors)
        ]
        return self.joined(torch.stack(losses).sum())

    @abstractmethod
    def direction_loss(self, similarity_RC: Tensor, excluded_RC: Tensor | None, first: int) -> Tensor:
        """Mean over rows, a scalar.

        Args:
            similarity_RC: of some rows with all columns; the positive of row i is column first + i.
            excluded_RC: True where a column is neither positive nor negative; None where there is no such.
            first: number of the first of these rows.
        """

    def joined(self, total: Tensor) -> Tensor:
        """The objective from the sum of its directions: their mean, or the single one of two dropout passes."""
        return total if self.candidates is Candidates.dropout else 0.5 * total

    def similarity(self, rows_RD: Tensor, columns_CD: Tensor) -> Tensor:
        """(R, C), higher is nearer."""
        return cosine_matrix(rows_RD, columns_CD)

    def directions(self, vectors: PairVectors) -> Iterator[Direction]:
        """Each set of vectors that is ranked, with its candidates."""
        v = vectors
        if self.has_teacher_candidates:
            extra = (v.teacher_negatives_QE, v.teacher_negative_ids_Q)
            for side_BD in (v.student_source_BD, v.student_target_BD):
                yield Direction(side_BD, v.teacher_source_BE, *extra)
        extra = (v.student_negatives_KD, v.student_negative_ids_K)
        if self.candidates is Candidates.dropout:
            assert v.student_source_second_pass_BD is not None, "the training loop provides the second dropout pass"
            yield Direction(v.student_source_BD, v.student_source_second_pass_BD, *extra)
        elif self.has_student_candidates:
            x_BD, y_BD = v.student_source_BD, v.student_target_BD
            # One matrix serves both directions, unless it is too large to be held.
            in_batch_similarity_BB = self.similarity(x_BD, y_BD) if len(x_BD) ** 2 <= MAX_ENTRIES else None
            yield Direction(x_BD, y_BD, *extra, in_batch_similarity_BB)
            yield Direction(y_BD, x_BD, *extra, None if in_batch_similarity_BB is None else in_batch_similarity_BB.T)

    def loss_of_rows(self, vectors: PairVectors, direction: Direction, first: int, last: int) -> Tensor:
        """`direction_loss` of the rows from `first` to before `last`."""
        rows = slice(first, last)
        rows_RD, similarity = direction.rows_BD, direction.in_batch_similarity_BB
        if last - first < direction.num_rows:
            rows_RD, similarity = rows_RD[rows], None if similarity is None else similarity[rows]
        if similarity is None:
            similarity = self.similarity(rows_RD, direction.positives_BD)
        if direction.negatives_KD is not None:
            similarity = torch.cat([similarity, self.similarity(rows_RD, direction.negatives_KD)], dim=1)
        excluded = excluded_candidates(
            vectors.source_ids_B, direction.negative_ids_K, rows, mask_same_source=self.mask_same_source
        )
        return self.direction_loss(similarity, excluded, first)
