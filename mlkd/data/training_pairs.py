"""All training pairs as indices into the distinct texts, so that each text is tokenised and taught once.

Shapes: P pairs of all languages, one after the other; T distinct texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlkd.data.pairs import LanguagePair

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class TrainingPairs:
    """The corpus in numbers.

    Args:
        texts: the T distinct texts, sources first.
        num_sources: texts[:num_sources] are the distinct source texts.
        source: (P,) index of each pair's source text.
        target: (P,) index of each pair's target text.
        language_sizes: pairs per language, in order.
    """

    texts: list[str]
    num_sources: int
    source: Indices
    target: Indices
    language_sizes: list[int]

    @classmethod
    def from_corpus(cls, pairs: Sequence[LanguagePair]) -> TrainingPairs:
        index: dict[str, int] = {}
        sources = [index.setdefault(text, len(index)) for pair in pairs for text in pair.source]
        num_sources = len(index)
        targets = [index.setdefault(text, len(index)) for pair in pairs for text in pair.target]
        return cls(
            texts=list(index),
            num_sources=num_sources,
            source=np.array(sources, dtype=np.int64),
            target=np.array(targets, dtype=np.int64),
            language_sizes=[len(pair) for pair in pairs],
        )
