"""Development split and limit of a language, by content: neither depends on the order of a file."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from mlkd.data.overlap import match_key

Pair = tuple[str, str]


@dataclass(slots=True)
class Split:
    """One language's pairs after the split, in their original order; `dropped` by reason."""

    train: list[Pair]
    dev: list[Pair]
    dropped: Counter[str] = field(default_factory=Counter)


def split_pairs(
    pairs: Mapping[str, list[Pair]], *, dev_pairs: int, max_dev_share: float, max_train_pairs: int | None, seed: int
) -> dict[str, Split]:
    """Hold out development pairs in every language so that nothing of them is left in training.

    A pair's rank is a hash of `seed` and its source text. The lowest ranks of a language are its development set. As a
    source text has one rank in all languages, languages that share sources share the development set, and little
    is lost where a held-out source must leave training in all of them. The same ranks choose what stays under
    `max_train_pairs`: languages then share their sources, and the teacher encodes each once.

    Args:
        pairs: kept pairs by target language.
        dev_pairs: wanted development pairs for each language.
        max_dev_share: at most this share of a language's pairs, 0 to 1.
        max_train_pairs: at most this many training pairs a language; None for all.
        seed: another seed, another development set.

    Returns:
        splits, with dropped `held_out_source` (its source, up to case and punctuation, is in a development set of any
        language), `held_out_target` (its target is in this language's) and `over_limit`.
    """
    keys = {language: [match_key(source) for source, _ in rows] for language, rows in pairs.items()}
    ranks = {language: [_rank(key, seed) for key in language_keys] for language, language_keys in keys.items()}
    held_out: dict[str, set[int]] = {}
    for language, rows in pairs.items():
        num_dev = min(dev_pairs, int(max_dev_share * len(rows)))
        held_out[language] = set(_lowest(num_dev, range(len(rows)), ranks[language], rows))
    dev_keys = {keys[language][index] for language, indices in held_out.items() for index in indices}
    splits = {}
    for language, rows in pairs.items():
        train, dropped = _remove_held_out(rows, held_out[language], keys[language], dev_keys)
        if max_train_pairs is not None and len(train) > max_train_pairs:
            dropped["over_limit"] = len(train) - max_train_pairs
            train = sorted(_lowest(max_train_pairs, train, ranks[language], rows))
        dev = [rows[index] for index in sorted(held_out[language])]
        splits[language] = Split([rows[index] for index in train], dev, dropped)
    return splits


def _rank(key: str, seed: int) -> int:
    # Of the key that comparisons go by, so that "Yes." and "Yes!" are held out together.
    digest = blake2b(key.encode(), digest_size=8, key=seed.to_bytes(8, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def _lowest(count: int, indices: Sequence[int], ranks: list[int], rows: list[Pair]) -> list[int]:
    """The `count` indices of lowest rank; ties are broken by the texts, never by the position."""
    return heapq.nsmallest(count, indices, key=lambda index: (ranks[index], rows[index]))


def _remove_held_out(
    rows: list[Pair], held_out: set[int], keys: list[str], dev_keys: set[str]
) -> tuple[list[int], Counter[str]]:
    """Indices of what may be trained on, in order."""
    dev_target_keys = {match_key(rows[index][1]) for index in held_out}
    train: list[int] = []
    dropped: Counter[str] = Counter()
    for index, (_, target) in enumerate(rows):
        if index in held_out:
            continue
        if keys[index] in dev_keys:
            dropped["held_out_source"] += 1
        elif match_key(target) in dev_target_keys:
            dropped["held_out_target"] += 1
        else:
            train.append(index)
    return train, dropped
