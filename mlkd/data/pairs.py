"""Pairs of sentences in two languages: as read from a file, and as kept for training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LanguagePair:
    """Parallel sentences: `target[i]` translates `source[i]`."""

    source_language: str
    target_language: str
    source: list[str]
    target: list[str]

    def __post_init__(self) -> None:
        assert len(self.source) == len(self.target), "both sides of a pair have one length"

    def __len__(self) -> int:
        return len(self.source)


@dataclass(slots=True)
class RawPairs:
    """Pairs of one language as they stand in a file.

    Args:
        source: texts before normalisation.
        target: their translations.
        origin: path or name of where they come from, for messages.
        line_numbers: of each pair in `origin`, from 1; empty where pair i stands in line i + 1.
        dropped: pairs the reader itself left out, by reason; they are not in `source`.
        cleaned: repairs made while reading.
        files: SHA-256 of each file's content, by path.
    """

    source: list[str]
    target: list[str]
    origin: str
    line_numbers: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def num_read(self) -> int:
        return len(self.source) + self.dropped.total()

    def place(self, index: int) -> str:
        """`file:line` of a pair."""
        return f"{self.origin}:{self.line_numbers[index] if self.line_numbers else index + 1}"
