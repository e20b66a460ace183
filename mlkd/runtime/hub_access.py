"""Names on the Hugging Face hub: how long it is waited for, and what is a path rather than an id."""

from __future__ import annotations

# The hub's clients retry a lost connection for half a minute; one short question comes first.
HUB_TIMEOUT_S = 5.0


def looks_like_path(name: str) -> bool:
    """Whether `name` can be no id `organisation/name`.

    >>> looks_like_path("./folder"), looks_like_path("org/set"), looks_like_path("a/b/c")
    (True, False, True)
    """
    return name.startswith((".", "/", "~")) or name.count("/") > 1
