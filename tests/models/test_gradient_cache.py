"""Gradient caching keeps no activations, and runs every pass twice under the same dropout."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlkd.models.gradient_cache import cached
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder


def test_value_gradient_and_random_state_of_a_plain_call() -> None:
    torch.manual_seed(0)
    layer, dropout = nn.Linear(3, 4, dtype=torch.float64), nn.Dropout(0.5)
    inputs = torch.randn(5, 3, dtype=torch.float64)
    results: list[tuple[Tensor, ...]] = []
    for run in (lambda f, x: f(x), cached):
        torch.manual_seed(1)
        layer.zero_grad()
        first, second = (run(lambda x: dropout(layer(x)).square(), inputs) for _ in range(2))
        assert not torch.equal(first, second)  # one mask each
        middle = torch.get_rng_state()
        (first.sum() + 2 * second.sum()).backward()
        assert torch.equal(torch.get_rng_state(), middle)  # the second pass draws nothing anew
        assert layer.weight.grad is not None
        results.append((first.detach(), second.detach(), layer.weight.grad.clone(), middle))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("caching", [False, True])
def test_activations_live_until_the_backward_pass_only_without_it(
    make_encoder: Callable[..., SentenceEncoder], sentences: list[str], *, caching: bool
) -> None:
    encoder = make_encoder(Pooling.mean).train()
    rows = encoder.tokenize(sentences)
    alive: list[Any] = []
    chunks: list[int] = []

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        alive.append(weakref.ref(output))
        chunks.append(len(output))

    backbone: Any = encoder.backbone
    backbone.encoder.layer[0].intermediate.register_forward_hook(watch)
    vectors = encoder.forward_tokens(rows, 100, caching=caching)
    gc.collect()
    num_chunks = len(chunks)
    assert num_chunks > 3
    assert sum(ref() is not None for ref in alive) == (0 if caching else num_chunks)
    vectors.square().sum().backward()
    assert len(chunks) == (2 * num_chunks if caching else num_chunks)
    assert sorted(chunks[num_chunks:]) == (sorted(chunks[:num_chunks]) if caching else [])
