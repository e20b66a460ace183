"""The loss: a weighted sum of terms, alpha * ranking + beta * feature + gamma * similarity + delta * masked_lm.

Shapes: B pairs, D student dimensions, E teacher dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mlkd.errors import MlkdError, Problem, out_of_range
from mlkd.losses.feature import FeatureTerm
from mlkd.losses.gradient_shares import gradient_norms, shares_of
from mlkd.losses.masked_lm import MASKED_LM, MaskedLmTerm
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.base import RankingTerm
from mlkd.losses.ranking.negatives import NegativePool
from mlkd.losses.similarity import SimilarityTerm
from mlkd.losses.term import AdditionalTerm, LossTerm, TermContext, TermFunction, WeightedTerm


@dataclass(kw_only=True, slots=True)
class LossMix:
    """L = alpha * ranking + beta * feature + gamma * similarity + delta * masked_lm + sum of additional terms.

    The first three are LEALLA's (Mao & Nakagawa 2023, eq. 5), the fourth is LASER3's (Heffernan et al. 2022).
    A term with weight 0 is not computed. Reimers & Gurevych 2020 is (0, 1, 0), LaBSE (1, 0, 0), LEALLA (1, 1e3, 1e-2).

    Args:
        alpha: weight of the ranking term, >= 0.
        beta: weight of the feature term, >= 0.
        gamma: weight of the similarity term, >= 0.
        delta: weight of masked language modelling, >= 0. It is computed from tokens, not from vectors: the training
            loop adds it to the terms of the mix.
        temperature: divides the cosines of the similarity term (LEALLA's T), > 0.
        ranking: the ranking objective; required where alpha > 0.
        terms: further terms on vectors by name, each with a weight of its own; see AdditionalTerm.
    """

    alpha: float = 0.0
    beta: float = 1.0
    gamma: float = 0.0
    delta: float = 0.0
    temperature: float = 100.0
    ranking: RankingTerm | None = None
    feature: FeatureTerm = field(default_factory=FeatureTerm)
    similarity: SimilarityTerm = field(default_factory=SimilarityTerm)
    masked_lm: MaskedLmTerm = field(default_factory=MaskedLmTerm)
    terms: dict[str, AdditionalTerm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = out_of_range(self, "alpha", "beta", "gamma", "delta", ge=0)
        if not any(weight > 0 for weight, _ in self._vector_terms().values()):
            problems.append(Problem("E204", "at least one of alpha, beta, gamma must be > 0"))
        if self.alpha > 0 and self.ranking is None:
            problems.append(Problem("E205", "is required for alpha > 0. Example: loss/ranking=info_nce", "ranking"))
        problems += [*out_of_range(self, "temperature", gt=0), *self._contradictions()]
        if problems:
            raise MlkdError(problems)

    def _contradictions(self) -> Iterator[Problem]:
        for name in self.terms:
            if name in ("ranking", "feature", "similarity", MASKED_LM):
                yield Problem("E209", f"the name '{name}' is taken by a term of every mix", f"terms.{name}")
        pools = {
            name: term.negative_pool.value for name, _, term in self.active_terms if term.num_teacher_negatives > 0
        }
        if len(set(pools.values())) > 1:
            found = ", ".join(f"{name} from {pool}" for name, pool in pools.items())
            yield Problem("E209", f"all terms must take teacher negatives from one pool (got {found})")

    def _vector_terms(self) -> dict[str, tuple[float, LossTerm | None]]:
        """Weight and term of each term on vectors, by name."""
        return {
            "ranking": (self.alpha, self.ranking),
            "feature": (self.beta, self.feature),
            "similarity": (self.gamma, self.similarity),
        } | {name: (term.weight, term) for name, term in self.terms.items()}

    @property
    def active_terms(self) -> list[WeightedTerm]:
        """The terms on vectors that have a weight."""
        return [
            WeightedTerm(name, weight, term)
            for name, (weight, term) in self._vector_terms().items()
            if term is not None and weight > 0
        ]

    # What any active term needs; see the property of that name in LossTerm.

    @property
    def needs_teacher_target(self) -> bool:
        return any(t.term.needs_teacher_target for t in self.active_terms)

    @property
    def needs_second_dropout_pass(self) -> bool:
        return any(t.term.needs_second_dropout_pass for t in self.active_terms)

    @property
    def needs_pre_projection(self) -> bool:
        return any(t.term.needs_pre_projection for t in self.active_terms)

    @property
    def num_hard_negatives(self) -> int:
        return max((t.term.num_hard_negatives for t in self.active_terms), default=0)

    @property
    def has_student_candidates(self) -> bool:
        return any(t.term.has_student_candidates for t in self.active_terms)

    @property
    def has_teacher_candidates(self) -> bool:
        return any(t.term.has_teacher_candidates for t in self.active_terms)

    @property
    def num_teacher_negatives(self) -> int:
        return max((t.term.num_teacher_negatives for t in self.active_terms), default=0)

    @property
    def negative_pool(self) -> NegativePool:
        pools = [t.term.negative_pool for t in self.active_terms if t.term.num_teacher_negatives > 0]
        return pools[0] if pools else NegativePool.queue

    @property
    def compares_dimensions(self) -> bool:
        return any(t.term.compares_dimensions for t in self.active_terms)

    @property
    def reduces_teacher(self) -> bool:
        return any(t.term.reduces_teacher for t in self.active_terms)

    def build(self, student_dimension: int, teacher_dimension: int) -> MixLoss:
        """The loss as a module; it holds the trainable weights of its terms, such as a projection."""
        context = TermContext(
            student_dimension=student_dimension, teacher_dimension=teacher_dimension, temperature=self.temperature
        )
        return MixLoss(self, {name: term.build(context) for name, _, term in self.active_terms})


@dataclass(frozen=True, slots=True)
class LossValues:
    """The weighted sum and, per term with a weight, the raw and the weighted scalar."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]

    def plus(self, name: str, raw: Tensor, weight: float) -> LossValues:
        """These values and one more term's."""
        weighted = weight * raw
        return LossValues(self.total + weighted, {**self.raw, name: raw}, {**self.weighted, name: weighted})


class MixLoss(nn.Module):
    """Computes a LossMix; knows vectors only, no model.

    Args:
        mix: its weights.
        functions: of its active terms, by name.
    """

    def __init__(self, mix: LossMix, functions: Mapping[str, TermFunction]) -> None:
        super().__init__()
        self.mix = mix
        self.functions = dict(functions)
        # Functions with weights to train are modules, whose weights are this module's as well.
        self.trained = nn.ModuleDict({name: f for name, f in functions.items() if isinstance(f, nn.Module)})

    def forward(self, vectors: PairVectors) -> LossValues:
        """The mix for one batch of `PairVectors`; where several processes train, the batch of all of them."""
        raw = {name: function(vectors) for name, function in self.functions.items()}
        weighted = {name: weight * raw[name] for name, weight, _ in self.mix.active_terms}
        return LossValues(total=torch.stack(list(weighted.values())).sum(), raw=raw, weighted=weighted)


def gradient_shares(values: LossValues, student_vectors: list[Tensor]) -> dict[str, float]:
    """Share of each weighted term in the gradient at the student's vectors, by norm; shares sum to 1.

    Args:
        values: of a forward pass whose graph is still alive.
        student_vectors: what the loss was computed from, `PairVectors.student_vectors`.
    """
    return shares_of(gradient_norms(values.weighted, student_vectors))
