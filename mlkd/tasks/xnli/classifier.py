"""Multinomial logistic regression on pairs of sentence vectors: (u, v, |u - v|, u * v), trained to its one optimum.

Shapes: N pairs, B pairs of a block, D dimensions, F = 4 D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Features are made block by block, and made again at every step where all of them would not fit.
_BLOCK_PAIRS = 4096
_MAX_HELD_BYTES = 1 << 30
_MAX_ITERATIONS = 500
_GRADIENT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class PairClassifier:
    """A linear classifier of standardised features.

    Args:
        weight_FC: float64.
        bias_C: float64.
        mean_F: of the training features.
        scale_F: their standard deviation, 1 where they do not vary.
        iterations: of L-BFGS.
        gradient: largest absolute entry of the objective's gradient where it stopped.
    """

    weight_FC: Tensor
    bias_C: Tensor
    mean_F: Tensor
    scale_F: Tensor
    iterations: int
    gradient: float

    def predict(self, first_ND: Tensor, second_ND: Tensor) -> Tensor:
        """The most probable class of each pair, (N,)."""
        logits = (
            ((features_BF - self.mean_F) / self.scale_F) @ self.weight_FC + self.bias_C
            for features_BF in feature_blocks(first_ND, second_ND)
        )
        return torch.cat([logits_BC.argmax(dim=1) for logits_BC in logits])


def fit_classifier(
    first_ND: Tensor, second_ND: Tensor, labels_N: Tensor, *, num_classes: int, l2: float
) -> PairClassifier:
    """Minimise summed cross-entropy + l2 / 2 ||W||² from zero with L-BFGS, in float64; the bias is not penalised.

    The objective is strictly convex in the weights: there is nothing random, and nothing to choose but `l2`.

    Args:
        first_ND: vectors u.
        second_ND: vectors v.
        labels_N: classes from 0, int64.
        num_classes: C.
        l2: > 0; scikit-learn's `LogisticRegression(C=1 / l2)` on the standardised features.

    Source:
        Conneau et al. 2017, "Supervised Learning of Universal Sentence Representations from Natural Language Inference
        Data", figure 1 (the features); Conneau & Kiela 2018, "SentEval" (a linear classifier on frozen vectors).
    """
    mean_F, scale_F = _moments(first_ND, second_ND)

    def blocks() -> Iterator[Tensor]:
        return ((features_BF - mean_F) / scale_F for features_BF in feature_blocks(first_ND, second_ND))

    held = list(blocks()) if 8 * len(first_ND) * len(mean_F) <= _MAX_HELD_BYTES else None
    weight_FC = torch.zeros(len(mean_F), num_classes, dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight_FC, bias_C],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> float:
        optimizer.zero_grad()
        # Divided by N, so that the tolerance means the same for every N.
        penalty = 0.5 * l2 / len(labels_N) * (weight_FC**2).sum()
        penalty.backward()  # type: ignore[no-untyped-call]
        value, start = float(penalty.detach()), 0
        for features_BF in held or blocks():
            labels_B = labels_N[start : start + len(features_BF)]
            start += len(features_BF)
            logits_BC = features_BF @ weight_FC + bias_C
            loss = torch.nn.functional.cross_entropy(logits_BC, labels_B, reduction="sum") / len(labels_N)
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
        return value

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    objective()
    assert weight_FC.grad is not None and bias_C.grad is not None
    gradient = max(float(weight_FC.grad.abs().max()), float(bias_C.grad.abs().max()))
    iterations = int(optimizer.state[weight_FC]["n_iter"])
    return PairClassifier(weight_FC.detach(), bias_C.detach(), mean_F, scale_F, iterations, gradient)


def feature_blocks(first_ND: Tensor, second_ND: Tensor) -> Iterator[Tensor]:
    """(B, F) float64 features of consecutive pairs."""
    for start in range(0, len(first_ND), _BLOCK_PAIRS):
        u_BD, v_BD = (side_ND[start : start + _BLOCK_PAIRS].double() for side_ND in (first_ND, second_ND))
        yield torch.cat([u_BD, v_BD, (u_BD - v_BD).abs(), u_BD * v_BD], dim=1)


def _moments(first_ND: Tensor, second_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the features, (F,) each; the deviation is 1 where it is 0."""
    num = len(first_ND)
    mean_F = torch.stack([block.sum(dim=0) for block in feature_blocks(first_ND, second_ND)]).sum(dim=0) / num
    squares = [((block - mean_F) ** 2).sum(dim=0) for block in feature_blocks(first_ND, second_ND)]
    scale_F = (torch.stack(squares).sum(dim=0) / num).sqrt()
    return mean_F, torch.where(scale_F > 0, scale_F, torch.ones_like(scale_F))
