"""Hand-written evaluation sets in English, German, Spanish, Russian and Chinese; none of it is in the grammar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mlkd.demo_data.grammar import LANGUAGES
from mlkd.demo_data.tables import read_table

_ALL_LANGUAGES = ("en", *LANGUAGES)
_NUM_PLANTED = 150
_SHUFFLE_SEED = 2025


@dataclass(frozen=True, slots=True)
class MiningSet:
    """Two monolingual collections of (id, text) and the (source id, target id) pairs that are translations."""

    source: list[tuple[str, str]]
    target: list[tuple[str, str]]
    gold: list[tuple[str, str]]


def _check(language: str, known: Sequence[str]) -> None:
    if language not in known:
        raise ValueError(f"language must be one of {', '.join(known)} (got {language!r})")


def everyday_texts(language: str) -> list[str]:
    """Everyday sentences; sentence n is the same in every language.

    Raises:
        ValueError: an unknown language.
    """
    _check(language, _ALL_LANGUAGES)
    header, rows = read_table("everyday.tsv")
    column = header.index(language)
    return [row[column] for row in rows]


def everyday(language: str, source_language: str = "en") -> list[tuple[str, str]]:
    """(source sentence, translation) pairs of everyday sentences.

    Raises:
        ValueError: an unknown language.
    """
    return list(zip(everyday_texts(source_language), everyday_texts(language), strict=True))


def graded_pairs(first: str, second: str) -> list[tuple[float, str, str]]:
    """(score, sentence, sentence) with the languages of the two; 0 is unrelated, 5 the same meaning.

    Raises:
        ValueError: an unknown language.
    """
    _check(first, _ALL_LANGUAGES)
    _check(second, _ALL_LANGUAGES)
    header, rows = read_table("sts.tsv")
    left, right = header.index(f"{first}1"), header.index(f"{second}2")
    return [(float(row[0]), row[left], row[right]) for row in rows]


def mining_set(source_language: str, target_language: str = "en") -> MiningSet:
    """A set in the manner of BUCC: translations planted among sentences that have none; ids like "de-000001".

    The rows of the everyday sentences in a fixed random order: the first are planted, of the others every second one
    gives its target side and the rest their source side.

    Raises:
        ValueError: an unknown language.
    """
    rows = everyday(target_language, source_language)
    random.Random(_SHUFFLE_SEED).shuffle(rows)
    planted, others = rows[:_NUM_PLANTED], rows[_NUM_PLANTED:]
    source = _numbered(source_language, [text for text, _ in planted + others[1::2]], seed=1)
    target = _numbered(target_language, [text for _, text in planted + others[::2]], seed=2)
    source_ids = {text: name for name, text in source}
    target_ids = {text: name for name, text in target}
    gold = sorted((source_ids[text], target_ids[translation]) for text, translation in planted)
    return MiningSet(source, target, gold)


def _numbered(language: str, sentences: list[str], seed: int) -> list[tuple[str, str]]:
    random.Random(seed).shuffle(sentences)
    return [(f"{language}-{number:06d}", sentence) for number, sentence in enumerate(sentences, start=1)]
