"""Hashes that name what was read or asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HASH_DIGITS = 12  # of a SHA-256, where it is printed


def fingerprint(texts: Iterable[str]) -> str:
    """SHA-256 of texts in order; `["ab", "c"]` and `["a", "bc"]` differ."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
