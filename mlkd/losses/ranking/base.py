"""What a ranking term ranks: each direction's matrix of similarities, and which of its entries are no negatives.

Shapes: B pairs, R of their rows, C = B + K columns, K further negatives, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.similarity_matrices import MAX_ENTRIES, cosine_matrix, in_row_blocks


class Candidates(Enum):
    """What a student vector is ranked against."""

    student = "student"  # the other side's student vectors of the batch
    teacher = "teacher"  # the batch's teacher vectors of the sources
    both = "both"  # the sum of the two objectives
    dropout = "dropout"  # the sources' student vectors under another dropout mask (SimCSE, Gao et al. 2021, eq. 4)


class NegativePool(Enum):
    """Where further teacher vectors come from."""

    queue = "queue"  # the sources of the batches before this one
    cache = "cache"  # drawn from all sources


@dataclass(kw_only=True, slots=True)
class RankingTerm(ABC):
    """A ranking objective: what is the same for all of them is what each vector is ranked against.

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
        problems = [
            Problem("E204", f"must be >= 0 (got {number})", name)
            for name, number in (("hard_negatives", self.hard_negatives), ("teacher_negatives", self.teacher_negatives))
            if number < 0
        ]
        if self.teacher_negatives > 0 and not self.has_teacher_candidates:
            what = f"needs candidates=teacher or candidates=both (got candidates={self.candidates.name})"
            problems.append(Problem("E209", what, "teacher_negatives", "set teacher_negatives=0"))
        return problems

    @property
    def has_teacher_candidates(self) -> bool:
        return self.candidates in (Candidates.teacher, Candidates.both)

    @property
    def has_student_candidates(self) -> bool:
        return self.candidates is not Candidates.teacher

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
        """The objective from the sum of its directions: the mean of the two, or the one of dropout passes."""
        return total if self.candidates is Candidates.dropout else 0.5 * total

    def similarity(self, rows_RD: Tensor, columns_CD: Tensor) -> Tensor:
        """(R, C), higher is nearer."""
        return cosine_matrix(rows_RD, columns_CD)

    def directions(self, vectors: PairVectors) -> Iterator[Direction]:
        """What is ranked against what."""
        v = vectors
        if self.has_teacher_candidates:
            extra = (v.teacher_negatives_QE, v.teacher_negative_ids_Q)
            for side_BD in (v.student_source_BD, v.student_target_BD):
                yield Direction(side_BD, v.teacher_source_BE, *extra)
        extra = (v.student_negatives_KD, v.student_negative_ids_K)
        if self.candidates is Candidates.dropout:
            assert v.student_source_second_pass_BD is not None, "the loop provides the second pass"
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
        excluded = vectors.same_source_mask(rows) if self.mask_same_source else None
        if direction.negatives_KD is not None and direction.negative_ids_K is not None:
            if excluded is None:
                excluded = torch.zeros_like(similarity, dtype=torch.bool)
            similarity = torch.cat([similarity, self.similarity(rows_RD, direction.negatives_KD)], dim=1)
            excluded = torch.cat([excluded, vectors.false_negative_mask(direction.negative_ids_K, rows)], dim=1)
        return self.direction_loss(similarity, excluded, first)


@dataclass(frozen=True, slots=True)
class Direction:
    """Row i must find positive i among all positives and negatives.

    Args:
        rows_BD: of the pairs.
        positives_BD: of the pairs.
        negatives_KD: further columns, or None.
        negative_ids_K: their ids, or None.
        in_batch_similarity_BB: similarities of rows and positives where they are known already.
    """

    rows_BD: Tensor
    positives_BD: Tensor
    negatives_KD: Tensor | None
    negative_ids_K: Tensor | None
    in_batch_similarity_BB: Tensor | None = None

    @property
    def num_rows(self) -> int:
        return len(self.rows_BD)

    @property
    def num_columns(self) -> int:
        return len(self.positives_BD) + (0 if self.negatives_KD is None else len(self.negatives_KD))
