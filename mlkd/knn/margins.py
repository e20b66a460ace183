"""Margin scores: a cosine weighed against the mean cosine of both sentences' neighbourhoods.

Shapes: N rows of one side, M of the other, K neighbours.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from mlkd.knn.neighbours import Neighbours


class Margin(enum.Enum):
    """How a cosine a is weighed against its neighbourhood b: `ratio` a / b, `distance` a - b, `absolute` a."""

    ratio = "ratio"
    distance = "distance"
    absolute = "absolute"


def margin_scores(neighbours: Neighbours, other_mean_M: Tensor, margin: Margin) -> Tensor:
    """Score each row's K neighbours.

    Args:
        neighbours: of the N rows among the M rows of the other side.
        other_mean_M: (M,) mean cosine of each row of the other side with its own neighbours.
        margin: which function.

    Returns:
        (N, K) float32. A ratio over a neighbourhood of mean 0 (rows of zeros) is 0.

    Source:
        Artetxe & Schwenk 2019, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings", eq. 1-3.

    >>> forward = Neighbours(torch.tensor([[0.8, 0.4]]), torch.tensor([[1, 0]]))
    >>> margin_scores(forward, torch.tensor([0.2, 0.4]), Margin.distance).tolist()
    [[0.30000001192092896, 0.0]]
    """
    if margin is Margin.absolute:
        return neighbours.similarity
    own_mean_N1 = neighbours.similarity.mean(dim=1, keepdim=True)
    neighbourhood_NK = (own_mean_N1 + other_mean_M[neighbours.index]) / 2
    if margin is Margin.distance:
        return neighbours.similarity - neighbourhood_NK
    ratio_NK = neighbours.similarity / neighbourhood_NK
    return torch.where(neighbourhood_NK == 0, torch.zeros_like(ratio_NK), ratio_NK)
