"""Each term's share of the gradient, and a warning of terms that move nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

log = logging.getLogger("mlkd")
NEGLIGIBLE_SHARE = 0.01
NEGLIGIBLE_STEPS = 5
WEIGHT_KEYS = {"ranking": "alpha", "feature": "beta", "similarity": "gamma", "masked_lm": "delta"}


def gradient_norms(
    weighted: Mapping[str, Tensor],
    student_vectors: Sequence[Tensor],
    mean: Callable[[Sequence[Tensor]], None] | None = None,
) -> dict[str, float]:
    """Norm of each weighted term's gradient at the student's vectors.

    Args:
        weighted: scalars whose graph is still alive.
        student_vectors: the tensors that they were computed from; see PairVectors.student_vectors.
        mean: replaces gradients by their means over the processes that train together, where each sees a part.
    """
    norms: dict[str, float] = {}
    for name, value in weighted.items():
        gradients = torch.autograd.grad(value, student_vectors, retain_graph=True, allow_unused=True)
        if mean is not None:
            pairs = zip(gradients, student_vectors, strict=True)
            gradients = tuple(torch.zeros_like(t) if g is None else g for g, t in pairs)
            mean(gradients)
        norms[name] = float(sum(g.square().sum() for g in gradients if g is not None) ** 0.5)
    return norms


def shares_of(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms over their sum; zeros where all are zero.

    >>> shares_of({"ranking": 3.0, "feature": 1.0})
    {'ranking': 0.75, 'feature': 0.25}
    """
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


class NegligibleTerms:
    """Warns once of each term whose share of the gradient stays under 1% for five observations in a row."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self._warned: set[str] = set()

    def observe(self, shares: Mapping[str, float]) -> None:
        """Take in the shares of a logged step."""
        if len(shares) < 2:
            return
        for name, share in shares.items():
            self._in_a_row[name] = self._in_a_row[name] + 1 if share < NEGLIGIBLE_SHARE else 0
            if self._in_a_row[name] >= NEGLIGIBLE_STEPS and name not in self._warned:
                self._warned.add(name)
                log.warning("%s", negligible_warning(name, share))


def negligible_warning(name: str, share: float) -> str:
    """What a term is worth, and what would give it a tenth of the gradient.

    >>> negligible_warning("feature", 0.005)
    'the feature term has 0.5% of the gradient: it hardly moves the student; loss.beta times 22 would give it a tenth'
    """
    what = f"the {name} term has {100 * share:.2g}% of the gradient: it hardly moves the student"
    if share <= 0:
        return f"{what}, whatever its weight"
    key = WEIGHT_KEYS.get(name, f"terms.{name}.weight")
    advice = f"loss.{key} times {(1 - share) / (9 * share):.2g} would give it a tenth"
    return f"{what}; {advice}" + (" (so would a lower loss.temperature)" if name == "similarity" else "")
