"""Overrides as people type them, as Hydra's grammar reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def as_hydra_reads(overrides: Sequence[str]) -> list[str]:
    """Overrides as they are typed, with the plus that `experiment=` needs and quotes around what needs them."""
    return [quote_if_needed(text) for text in rewrite_experiment(overrides)]


def rewrite_experiment(arguments: Sequence[str]) -> list[str]:
    """`experiment=x` is what people type; Hydra wants `+experiment=x` as it is not in the defaults list.

    The same holds for `sweep=x`.
    """
    return [f"+{a}" if a.startswith(("experiment=", "sweep=")) else a for a in arguments]


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
