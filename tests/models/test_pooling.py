"""Pooling against loops over real tokens."""

from __future__ import annotations

import pytest
import torch

from mlkd.models.pooling import Pooling, pool


def naive(tokens: list[list[float]], mask: list[int], pooling: Pooling) -> list[float]:
    kept = [token for token, real in zip(tokens, mask, strict=True) if real]
    if pooling is Pooling.cls:
        return tokens[0]
    columns = list(zip(*kept, strict=True))
    return [max(c) for c in columns] if pooling is Pooling.max else [sum(c) / len(c) for c in columns]


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("seed", range(3))
def test_pooling_ignores_padding(pooling: Pooling, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(4, 6, 3, generator=generator) - 2.0  # below 0, so that a padding of 0 would win the maximum
    mask = torch.zeros(4, 6, dtype=torch.int64)
    for i, length in enumerate([6, 1, 3, 2]):
        mask[i, :length] = 1
    expected = [naive(t, m, pooling) for t, m in zip(tokens.tolist(), mask.tolist(), strict=True)]
    torch.testing.assert_close(pool(tokens, mask, pooling), torch.tensor(expected))
    changed = tokens.masked_fill(mask.unsqueeze(-1) == 0, 1e6)
    torch.testing.assert_close(pool(changed, mask, pooling), torch.tensor(expected))


@pytest.mark.parametrize("pooling", Pooling)
def test_bf16_tokens_are_pooled_in_fp32(pooling: Pooling) -> None:
    tokens = torch.full((1, 1000, 1), 1.0, dtype=torch.bfloat16)
    tokens[0, 0] = 3.0
    result = pool(tokens, torch.ones(1, 1000, dtype=torch.int64), pooling)
    assert result.dtype is torch.float32
    # A sum in bf16 would stop growing at 256.
    assert result.item() == pytest.approx({Pooling.mean: 1.002, Pooling.cls: 3.0, Pooling.max: 3.0}[pooling], rel=1e-6)


@pytest.mark.parametrize("pooling", Pooling)
def test_inputs_are_not_changed(pooling: Pooling) -> None:
    tokens, mask = torch.randn(2, 3, 2), torch.tensor([[1, 1, 0], [1, 0, 0]])
    tokens_before, mask_before = tokens.clone(), mask.clone()
    pool(tokens, mask, pooling)
    assert torch.equal(tokens, tokens_before) and torch.equal(mask, mask_before)
