"""Gradient caching: a batch of any size in the memory of one forward pass.

A loss over a whole batch needs every vector at once, but not every activation. Each pass keeps its vectors alone; when
their gradient is known the pass runs again, from the same random state and so under the same dropout masks, and goes
back. Nothing but memory (and a second forward) distinguishes it: passes, masks and order of sums are those of a plain
backward pass.

Source: GradCache, Gao et al. 2021 (https://aclanthology.org/2021.repl4nlp-1.31), section 3.2; written with PyTorch's
checkpointing, whose recomputation is the second pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint


def cached(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`function(*inputs)`, of which only inputs and result are kept for the backward pass.

    Args:
        function: deterministic but for PyTorch's random numbers, whose state is put back for its second call.
        inputs: tensors among them are kept as they are, so they should be small: token ids, not activations.
    """
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=True)
    return result
