"""Loss terms: what each declares that it needs, and how the mix builds it.

Shapes: B pairs, K mined negatives, Q further teacher vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.negatives import NegativePool

TermFunction = Callable[[PairVectors], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermContext:
    """What a term is built for.

    Args:
        student_dimension: of the student's vectors.
        teacher_dimension: of the teacher's, after any reduction.
        temperature: of the mix.
    """

    student_dimension: int
    teacher_dimension: int
    temperature: float


@dataclass(kw_only=True, slots=True)
class LossTerm(ABC):
    """A term of the loss on the vectors of a batch.

    What is needed to compute it is declared by its properties: the run provides what any term of its mix needs.
    """

    @abstractmethod
    def build(self, context: TermContext) -> TermFunction:
        """The term as a function of a batch's vectors to a scalar; an nn.Module where it has weights to train."""

    @property
    def needs_teacher_target(self) -> bool:
        """Whether the teacher must encode the translations too: `teacher_target_BE`."""
        return False

    @property
    def needs_second_dropout_pass(self) -> bool:
        """Whether the student encodes the sources twice, by two dropout masks: `student_source_second_pass_BD`."""
        return False

    @property
    def needs_pre_projection(self) -> bool:
        """Whether the vectors before the student's last dense layer are wanted: `student_*_pre_projection_BW`."""
        return False

    @property
    def num_hard_negatives(self) -> int:
        """Mined negatives a pair, at least; as vectors of the encoders that are among the candidates."""
        return 0

    @property
    def has_student_candidates(self) -> bool:
        """Whether mined negatives are wanted as student vectors: `student_negatives_KD`."""
        return False

    @property
    def has_teacher_candidates(self) -> bool:
        """Whether student vectors meet teacher vectors as candidates; mined ones are among `teacher_negatives_QE`."""
        return False

    @property
    def num_teacher_negatives(self) -> int:
        """Further source texts whose teacher vectors are negatives of the whole batch, at least; 0 for none."""
        return 0

    @property
    def negative_pool(self) -> NegativePool:
        """Where these further source texts come from."""
        return NegativePool.queue

    @property
    def compares_dimensions(self) -> bool:
        """Whether student and teacher vectors meet without a projection, so that their dimensions must agree."""
        return False

    @property
    def reduces_teacher(self) -> bool:
        """Whether teacher vectors are reduced to the student's dimension before the run."""
        return False


@dataclass(kw_only=True, slots=True)
class AdditionalTerm(LossTerm):
    """A term beside ranking, feature and similarity: `loss.terms.<name>`, with a weight of its own.

    A subclass is a dataclass with `__call__`, and with those properties of LossTerm that it needs to declare.

    Args:
        weight: of the term, >= 0; 0 leaves it out.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        problems = self.range_problems()
        if problems:
            raise MlkdError(problems)

    def range_problems(self) -> list[Problem]:
        """A subclass adds its own to these."""
        return out_of_range(self, "weight", ge=0)

    def build(self, context: TermContext) -> TermFunction:
        """The term itself; to be overridden where it has weights to train or depends on dimensions."""
        return self

    @abstractmethod
    def __call__(self, vectors: PairVectors) -> Tensor:
        """The term's raw value, a scalar."""


class WeightedTerm(NamedTuple):
    """A term with its name, as in `loss/<name>` of metrics.jsonl, and its weight in the mix."""

    name: str
    weight: float
    term: LossTerm
