"""Alternatives: of two keys that exclude each other, the one that a command names takes the place of a preset one."""

from __future__ import annotations

from collections.abc import Sequence

ALTERNATIVES = (("optim.max_steps", "optim.epochs"), ("optim.warmup_steps", "optim.warmup_ratio"))


def without_presets(overrides: Sequence[str]) -> list[str]:
    """Overrides with the other key set to null where a command names one key of a pair alone, and gives it a value.

    >>> without_presets(["optim.max_steps=5", "seed=2"])
    ['optim.max_steps=5', 'seed=2', 'optim.epochs=null']
    >>> without_presets(["optim.max_steps=5", "optim.epochs=1"]), without_presets(["optim.epochs=null"])
    (['optim.max_steps=5', 'optim.epochs=1'], ['optim.epochs=null'])
    """
    named = {}
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        named[key] = value.strip()
    more = []
    for pair in ALTERNATIVES:
        for key, other in (pair, pair[::-1]):
            if named.get(key, "null") not in ("null", "") and other not in named:
                more.append(f"{other}=null")
    return [*overrides, *more]
