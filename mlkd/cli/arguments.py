"""What people type, as Hydra's grammar reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def rewrite_experiment(arguments: Sequence[str]) -> list[str]:
    """`experiment=x` is what people type; Hydra wants `+experiment=x` as it is not in the defaults list.

    The same holds for `sweep=x`.
    """
    return [f"+{a}" if a.startswith(("experiment=", "sweep=")) else a for a in arguments]


def multirun_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's parser reads overrides only in one piece, and -m is what people type between them.

    >>> multirun_first(["a=1", "-m", "b=2"])
    ['-m', 'a=1', 'b=2']
    """
    flags = [a for a in arguments if a in ("-m", "--multirun")]
    return [*flags[:1], *(a for a in arguments if a not in flags)]


def quote_if_needed(argument: str) -> str:
    """Quote a value that Hydra's grammar cannot read bare, such as a path with braces, `=` or letters beyond ASCII."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals or value[:1] in ("[", "{", "'", '"'):
        return argument
    parser = OverridesParser.create()
    for candidate in (argument, f"{key}={quote(value)}"):
        try:
            parser.parse_override(candidate)
        except HydraException:
            continue
        return candidate
    return argument


def quote(value: str) -> str:
    r"""`value` as Hydra reads it back: inside quotes, a backslash escapes only where it stands before a quote.

    >>> print(quote(r"it's a\b"))
    'it\'s a\b'
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def names_sweep(overrides: Sequence[str]) -> bool:
    """Whether an option of the group `sweep` is chosen, which makes a command a sweep without -m."""
    return any(o.lstrip("+").startswith("sweep=") for o in overrides)


def has_own_folder(overrides: Sequence[str]) -> bool:
    """Whether the user said where the run goes."""
    return any(o.lstrip("+").startswith("hydra.run.dir=") for o in overrides)
