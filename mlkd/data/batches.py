"""Which pairs meet in which batch: a pure function of seed and epoch.

Shapes: P pairs of all languages, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Batches:
    """Order of training pairs.

    Every epoch has as many pairs as the corpus. At temperature 1 it is a permutation of the corpus; at temperature
    T > 1 language l gets the share n_l^(1/T) / sum n^(1/T), large languages being subsampled anew in each epoch and
    small ones repeated in whole passes plus a sample (Conneau et al. 2020, section 3, with 1/T for alpha).

    Args:
        language_sizes: pairs per language.
        batch_size: pairs per batch; the batches of an epoch differ by at most one pair, so none is left over.
        temperature: >= 1.
        seed: of all epochs.
    """

    language_sizes: Sequence[int]
    batch_size: int
    temperature: float = 1.0
    seed: int = 1

    @property
    def num_pairs(self) -> int:
        return sum(self.language_sizes)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return max(1, -(-self.num_pairs // self.batch_size))

    def language_quotas(self) -> list[int]:
        """Pairs of each language in one epoch, summing to the corpus."""
        sizes = np.asarray(self.language_sizes, dtype=np.float64)
        wanted = sizes ** (1.0 / self.temperature)
        wanted *= sizes.sum() / wanted.sum()
        quotas = np.floor(wanted).astype(np.int64)
        # Largest remainders get the pairs that rounding down left over.
        rest = int(self.num_pairs - quotas.sum())
        quotas[np.argsort(-(wanted - quotas), kind="stable")[:rest]] += 1
        return [int(q) for q in quotas]

    def epoch(self, epoch: int) -> list[Indices]:
        """The batches of one epoch, each an array of pair indices into the P pairs."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        chosen: list[Indices] = []
        start = 0
        for size, quota in zip(self.language_sizes, self.language_quotas(), strict=True):
            passes, rest = divmod(quota, size) if size else (0, 0)
            parts = [np.arange(size)] * passes + [generator.permutation(size)[:rest]]
            chosen.append(start + np.concatenate(parts))
            start += size
        order = generator.permutation(np.concatenate(chosen))
        return list(np.array_split(order, self.num_batches))
