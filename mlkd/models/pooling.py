"""Pooling: from token vectors to one vector per sentence, by mean, CLS or max.

Shapes: N sentences, L tokens, H hidden dimensions.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor


class Pooling(Enum):
    """How a sentence's token vectors become one vector."""

    mean = "mean"
    cls = "cls"
    max = "max"


def pool(tokens_NLH: Tensor, mask_NL: Tensor, pooling: Pooling) -> Tensor:
    """Pool over real tokens (mask 1), special tokens included as in sentence-transformers.

    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool(tokens, torch.tensor([[1, 1, 0]]), Pooling.mean).tolist()
    [[2.0]]

    Returns:
        (N, H), float32 or better whatever the precision of the tokens.
    """
    dtype = torch.promote_types(tokens_NLH.dtype, torch.float32)
    if pooling is Pooling.cls:
        return tokens_NLH[:, 0].to(dtype)
    mask_NL1 = mask_NL.unsqueeze(-1)
    if pooling is Pooling.max:
        return tokens_NLH.masked_fill(mask_NL1 == 0, float("-inf")).amax(dim=1).to(dtype)
    # Summed in fp32: under bf16 autocast a bf16 sum over tokens would lose the last digits.
    total_NH = (tokens_NLH * mask_NL1).sum(dim=1, dtype=dtype)
    return total_NH / mask_NL.sum(dim=1, keepdim=True).clamp(min=1)
