"""Encoders with known answers, and the adapter through which sentence-transformers' evaluators see them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


class HashEncoder:
    """A fixed random vector for each text; `key` says which texts share one. Counts what it is asked for."""

    def __init__(self, num_dimensions: int = 24, key: Callable[[str], str] = str, noise: float = 0.0) -> None:
        self.num_dimensions = num_dimensions
        self.key = key
        self.noise = noise
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += texts
        rows = [self._random(self.key(text)) + self.noise * self._random("noise " + text) for text in texts]
        return torch.stack(rows) if rows else torch.zeros(0, self.num_dimensions)

    def _random(self, text: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return torch.randn(self.num_dimensions, generator=generator)


class TableEncoder:
    """Vectors given for each text."""

    def __init__(self, table: dict[str, list[float]]) -> None:
        self.table = table

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([self.table[text] for text in texts])


class SentenceTransformerView:
    """As much of a SentenceTransformer as its evaluators use."""

    similarity_fn_name = "cosine"

    class model_card_data:  # noqa: N801  (the name sentence-transformers looks for)
        @staticmethod
        def set_evaluation_metrics(*args: Any, **kwargs: Any) -> None:
            pass

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def encode(self, sentences: Sequence[str], convert_to_numpy: bool = True, **_: Any) -> Any:
        vectors = self.encoder.encode(list(sentences))
        return np.asarray(vectors) if convert_to_numpy else list(vectors)


@pytest.fixture
def hash_encoder() -> type[HashEncoder]:
    return HashEncoder


@pytest.fixture
def table_encoder() -> type[TableEncoder]:
    return TableEncoder


@pytest.fixture
def as_sentence_transformer() -> type[SentenceTransformerView]:
    return SentenceTransformerView


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write rows of cells as a TAB-separated file below a folder with a space and an umlaut in its name."""

    def write_rows(name: str, *rows: Sequence[str]) -> str:
        path = tmp_path / "lä b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())
        return str(path)

    return write_rows
