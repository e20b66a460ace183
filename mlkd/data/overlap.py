"""Overlap of two sets, ignoring case, punctuation and spacing: leaks between training and evaluation."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mlkd.data.pairs import LanguagePair

logger = logging.getLogger("mlkd")

_MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of an evaluation set occurs in training.

    Args:
        found: distinct evaluation sentences that occur on either side of any training pair.
        total: distinct evaluation sentences.
        examples: the first few that were found.
    """

    found: int
    total: int
    examples: tuple[str, ...] = ()


def match_key(text: str) -> str:
    """Letters and digits of a text in one case; the text itself where it has none.

    >>> match_key("Hello,  World!") == match_key("hello world"), match_key("?!")
    (True, '?!')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)  # folds full-width and ligature forms
    return _between_words().sub("", text.casefold()) or text


@cache
def _between_words() -> re.Pattern[str]:
    r"""Runs of punctuation, symbols, spaces and invisible characters.

    Not `\W`, which also takes the vowel signs of Indic and Thai script for no part of a word.
    """
    ranges = []
    start = None
    for code_point in range(0x10000):
        category = unicodedata.category(chr(code_point))
        if category[0] in "PSZ" or category in ("Cc", "Cf"):
            start = code_point if start is None else start
        elif start is not None:
            ranges.append(f"\\u{start:04x}-\\u{code_point - 1:04x}")
            start = None
    return re.compile(f"[{''.join(ranges)}]+")


def evaluation_overlap(
    train: Sequence[LanguagePair], evaluation: Mapping[str, Iterable[str]], *, warn: bool = True
) -> dict[str, Overlap]:
    """Look for every evaluation sentence among the training sentences, on either side, in any language.

    Args:
        train: training pairs.
        evaluation: texts by the name of their set, e.g. `tatoeba/de`.
        warn: log W315 for each set with a hit.
    """
    wanted = {name: {match_key(text): text for text in texts} for name, texts in evaluation.items()}
    # Only the evaluation side is held as keys of a set: it is small, and training is streamed past it.
    all_keys = set().union(*wanted.values()) if wanted else set()
    found_keys = set()
    if all_keys:
        for pair in train:
            for side in (pair.source, pair.target):
                found_keys |= all_keys.intersection(map(match_key, side))
    overlaps = {}
    for name, texts in wanted.items():
        examples = [text for key, text in texts.items() if key in found_keys]
        overlaps[name] = Overlap(len(examples), len(texts), tuple(examples[:_MAX_EXAMPLES]))
        if examples and warn:
            message = "warning[W315]: %s of %s %s sentences occur in training, e.g. '%s'"
            logger.warning(message, f"{len(examples):,}", f"{len(texts):,}", name, examples[0])
    return overlaps
