"""Short names of systems: what of their paths tells them apart, or letters where even that is too long."""

from __future__ import annotations

import re
from collections.abc import Sequence


def short_names(systems: Sequence[str]) -> dict[str, str]:
    """System -> its experiment or model where that is unique, else as much more of its path as makes it so.

    >>> short_names(["outputs/small/2026-01-31_12-00-00", "sentence-transformers/LaBSE", "teacher"])
    {'outputs/small/2026-01-31_12-00-00': 'small', 'sentence-transformers/LaBSE': 'LaBSE', 'teacher': 'teacher'}
    """
    short = {system: _shortened(system, 0) for system in systems}
    for level in range(1, 2 + max((system.count("/") for system in systems), default=0)):
        taken = list(short.values())
        short = {system: _shortened(system, level) if taken.count(name) > 1 else name for system, name in short.items()}
    return short if len(set(short.values())) == len(short) else {system: system for system in systems}


def letters(systems: Sequence[str]) -> dict[str, str]:
    """System -> A, B, ..., from the 27th on S27, S28, ..."""
    return {name: chr(ord("A") + i) if i < 26 else f"S{i + 1}" for i, name in enumerate(systems)}


def _shortened(system: str, level: int) -> str:
    """The innermost folder that is no time and no number and what is inside it, with `level` more folders before it."""
    if "/" not in system or re.search(r"\s", system):
        return system
    parts = system.rstrip("/").split("/")
    named = [i for i, part in enumerate(parts) if part and not part[0].isdigit()]
    start = named[-1] if named else len(parts) - 1
    if level == 0:
        return parts[start]
    return "/".join(parts[max(0, start - level + 1) :])
