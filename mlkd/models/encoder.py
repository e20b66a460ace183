"""Encoder protocol: one method from sentences to vectors.

Shapes: N sentences, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns sentences into vectors: a student, a teacher, a baseline, a table of precomputed rows."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode `texts` in order.

        Returns:
            float32 tensor (N, D) on the CPU, not necessarily of unit norm; (0, D) for no texts.
        """
        ...
