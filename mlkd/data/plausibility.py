"""Plausibility of parallel text: signs that a file holds another language than its name says."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

from mlkd.data.languages import expected_script, script_of

logger = logging.getLogger("mlkd")

_NUM_SAMPLED = 500
_MIN_LINES = 20
_SUSPICIOUS_SHARE = 0.5
_IDENTICAL_SHARE = 0.1
# Words that most English sentences have and that no other language spells the same.
_ENGLISH = re.compile(r"\b(the|and|you|that|this|with|have|they|what|are|were|would|from|which|there)\b", re.IGNORECASE)
_MIN_WORDS = 4


def warn_about_language(
    pairs: Sequence[tuple[str, str]], source_language: str, target_language: str, origin: str
) -> None:
    """Log W308 where a side is mostly in another script, or the target is mostly English, and W309 for copied text."""
    if len(pairs) < _MIN_LINES:
        return
    sample = pairs[:: max(1, len(pairs) // _NUM_SAMPLED)][:_NUM_SAMPLED]
    sides = ((source_language, [source for source, _ in sample]), (target_language, [target for _, target in sample]))
    for side, (language, texts) in zip(("source", "target"), sides, strict=True):
        finding = _wrong_script(texts, language)
        if finding is None and side == "target" and not language.startswith("en"):
            finding = _looks_english(texts)
        if finding:
            message = "warning[W308]: %s: the %s side, '%s', %s; are the columns swapped?"
            logger.warning(message, origin, side, language, finding)
    num_identical = sum(source == target for source, target in pairs)
    if num_identical > _IDENTICAL_SHARE * len(pairs):
        share = f"{100 * num_identical / len(pairs):.0f} %"
        message = (
            "warning[W309]: %s: %s of %s pairs are identical on both sides; data.drop_identical=true leaves them out"
        )
        logger.warning(message, origin, share, f"{len(pairs):,}")


def _wrong_script(texts: Sequence[str], language: str) -> str | None:
    expected = expected_script(language)
    scripts = Counter(script for script in map(script_of, texts) if script)
    if expected is None or not scripts:
        return None
    # A Japanese sentence can be written in Han alone.
    fitting = scripts[expected] + (scripts["Han"] if expected == "Japanese" else 0)
    script, count = max(
        ((name, n) for name, n in scripts.items() if name != expected), key=lambda item: item[1], default=("", 0)
    )
    if fitting >= (1 - _SUSPICIOUS_SHARE) * scripts.total():
        return None
    return f"looks wrong: {100 * count / scripts.total():.0f} % of {scripts.total()} lines are in {script} script"


def _looks_english(texts: Sequence[str]) -> str | None:
    long_enough = [text for text in texts if text.count(" ") >= _MIN_WORDS - 1]
    if len(long_enough) < _MIN_LINES:
        return None
    share = sum(bool(_ENGLISH.search(text)) for text in long_enough) / len(long_enough)
    if share <= _SUSPICIOUS_SHARE:
        return None
    return f"looks like 'en' ({100 * share:.0f} % of {len(long_enough)} lines have English words)"
