"""Parallel sentences composed by frames and a lexicon: correct by construction, the same on every machine."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from functools import cache

from mlkd.demo_data.inflection import finish
from mlkd.demo_data.lexicon import Entry, Forms, entries, function_words
from mlkd.demo_data.tables import read_table
from mlkd.demo_data.verbs import verb_phrases

LANGUAGES: tuple[str, ...] = ("de", "es", "ru", "zh")

_FIELD = re.compile(r"\{([^{}]+)\}")
# {slot.key@other}: form `key` of the word in `slot`, agreeing with `other` in person (@), gender (%) or both (&).
_REFERENCE = re.compile(r"([^.@%&]+)(?:\.([^@%&]+))?(?:([@%&])(\w+))?$")
_AGREEMENT = {"@": ("p",), "%": ("g",), "&": ("p", "g")}


@dataclass(frozen=True, slots=True)
class Part:
    """A place in a template; `slot` is -1 for a word of the closed class, whose forms are `word`."""

    slot: int
    key: str
    agrees_with: int
    agreement: tuple[str, ...]
    word: Forms | None


@dataclass(frozen=True, slots=True)
class Frame:
    """A sentence with slots: `domains` are what each slot can hold, `templates` the sentence by language."""

    domains: tuple[tuple[Entry, ...], ...]
    templates: dict[str, tuple[str | Part, ...]]

    @property
    def size(self) -> int:
        return math.prod(len(domain) for domain in self.domains)

    def choose(self, index: int) -> list[Entry]:
        chosen = []
        for domain in self.domains:
            index, position = divmod(index, len(domain))
            chosen.append(domain[position])
        return chosen

    def render(self, language: str, chosen: list[Entry]) -> str:
        pieces = []
        for part in self.templates[language]:
            pieces.append(part if isinstance(part, str) else _resolve(part, language, chosen))
        return finish(language, "".join(pieces))


def _resolve(part: Part, language: str, chosen: list[Entry]) -> str:
    agreeing = ".".join(chosen[part.agrees_with].forms[language][name] for name in part.agreement)
    if part.word is not None:
        return part.word[agreeing]
    forms = chosen[part.slot].forms[language]
    return forms[f"{part.key}.{agreeing}" if agreeing else part.key]


def _domain(expression: str) -> tuple[Entry, ...]:
    """Entries of a class expression: "|" or, "&" and, "!" not. "vp" alone names verb phrases."""
    pool = verb_phrases() if expression.startswith("vp") else entries()
    found = []
    for entry in pool:
        for alternative in expression.split("|"):
            wanted, *unwanted = alternative.split("!")
            if entry.classes.issuperset(wanted.split("&")) and not entry.classes & set(unwanted):
                found.append(entry)
                break
    assert found, f"no entry is {expression}"
    return tuple(found)


def _compile(template: str, language: str, slots: list[str]) -> tuple[str | Part, ...]:
    parts: list[str | Part] = []
    for index, piece in enumerate(_FIELD.split(template)):
        if index % 2 == 0:
            if piece:
                parts.append(piece)
            continue
        match = _REFERENCE.match(piece)
        assert match, f"{piece} in {template}"
        name, key, sign, other = match.groups()
        slot = slots.index(name) if name in slots else -1
        word = None if slot >= 0 else function_words()[language][name]
        parts.append(Part(slot, key or "nom", slots.index(other) if other else -1, _AGREEMENT.get(sign, ()), word))
    return tuple(parts)


@cache
def frames() -> tuple[Frame, ...]:
    header, rows = read_table("frames.tsv")
    result = []
    for row in rows:
        pairs = [pair.split("=", 1) for pair in row[0].split(" ")]
        slots = [name for name, _ in pairs]
        domains = tuple(_domain(expression) for _, expression in pairs)
        templates = {
            language: _compile(template, language, slots)
            for language, template in zip(header[1:], row[1:], strict=True)
        }
        result.append(Frame(domains, templates))
    return tuple(result)


def max_pairs() -> int:
    """How many distinct pairs the grammar has; the same for every language."""
    return sum(frame.size for frame in frames())


def _quotas(sizes: list[int], total: int) -> list[int]:
    """Sentences of each frame: by the square root of its size, so that small frames are heard, at most its size."""
    quotas = [0] * len(sizes)
    while total > 0:
        open_frames = [index for index, size in enumerate(sizes) if quotas[index] < size]
        weights = {index: math.isqrt(sizes[index]) for index in open_frames}
        weight_sum = sum(weights.values())
        share = {
            index: min(sizes[index] - quotas[index], total * weights[index] // weight_sum) for index in open_frames
        }
        given = sum(share.values())
        if given == 0:
            share, given = dict.fromkeys(open_frames[:total], 1), min(total, len(open_frames))
        for index, count in share.items():
            quotas[index] += count
        total -= given
    return quotas


def generate_pairs(language: str, num_pairs: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct (English, translation) pairs; the English sentences are the same for every language.

    Raises:
        ValueError: an unknown language, or more pairs than the grammar has.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)} (got {language!r})")
    if not 0 <= num_pairs <= max_pairs():
        raise ValueError(f"num_pairs must be from 0 to {max_pairs()}, what the grammar has (got {num_pairs})")
    generator = random.Random(seed)
    pairs = []
    for frame, quota in zip(frames(), _quotas([frame.size for frame in frames()], num_pairs), strict=True):
        for index in generator.sample(range(frame.size), quota):
            chosen = frame.choose(index)
            pairs.append((frame.render("en", chosen), frame.render(language, chosen)))
    generator.shuffle(pairs)
    return pairs
