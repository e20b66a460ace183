"""Filters of sentence pairs: normalised, bad ones left out, with a count for every reason."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from dataclasses import dataclass

from mlkd.data.pairs import RawPairs

logger = logging.getLogger("mlkd")

# Longer "sentences" are dumps: they cost minutes to tokenise even where no limit is set.
_MAX_CHARS_EVER = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pair must keep to; None is no limit. Lengths are in characters after normalisation, of either side."""

    min_chars: int = 1
    max_chars: int | None = None
    max_length_ratio: float | None = None
    drop_identical: bool = False
    drop_duplicates: bool = True


def normalise(text: str) -> str:
    """Unicode NFC without white space at the ends.

    >>> normalise(" Cafe\u0301 ") == "Caf\u00e9"
    True
    """
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def filter_pairs(raw: RawPairs, limits: Limits) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Normalise and filter in order.

    Returns:
        kept pairs, and how many were dropped by the first reason that held: `empty`, `over_a_million_chars`,
        `too_short`, `too_long`, `length_ratio`, `identical`, `duplicate`.
    """
    kept: list[tuple[str, str]] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for index, (source_text, target_text) in enumerate(zip(raw.source, raw.target, strict=True)):
        pair = normalise(source_text), normalise(target_text)
        reason = _reason(pair, limits)
        if reason is None and limits.drop_duplicates:
            if pair in seen:
                reason = "duplicate"
            seen.add(pair)
        if reason is None:
            kept.append(pair)
            continue
        dropped[reason] += 1
        if reason == "over_a_million_chars":
            logger.warning("warning[W306]: %s: a line of over a million characters was left out", raw.place(index))
    return kept, dropped


def _reason(pair: tuple[str, str], limits: Limits) -> str | None:
    shorter, longer = sorted((len(pair[0]), len(pair[1])))
    if shorter == 0:
        return "empty"
    if longer > _MAX_CHARS_EVER:
        return "over_a_million_chars"
    if shorter < limits.min_chars:
        return "too_short"
    if limits.max_chars is not None and longer > limits.max_chars:
        return "too_long"
    if limits.max_length_ratio is not None and longer > limits.max_length_ratio * shorter:
        return "length_ratio"
    if limits.drop_identical and pair[0] == pair[1]:
        return "identical"
    return None
