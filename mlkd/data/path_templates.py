"""Templates of paths, columns and subsets: placeholders in braces, such as `{language}`, and what is wrong with one."""

from __future__ import annotations

import string
from collections.abc import Iterable

from mlkd.errors import MlkdError, Problem, did_you_mean


def check_template(template: str, where: str, known: Iterable[str]) -> list[Problem]:
    """E204 for an unknown placeholder, or for braces that do not close.

    Args:
        template: a literal brace is written twice.
        where: the field that holds it.
        known: placeholders.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return [Problem("E204", f"'{template}': {error}", where, "a literal brace is written twice: {{")]
    names = list(known)
    for _, name, width, conversion in parts:
        if name is None or (name in names and not width and not conversion):
            continue
        written = f"{name}{f'!{conversion}' if conversion else ''}{f':{width}' if width else ''}"
        listed = ", ".join(f"{{{option}}}" for option in names)
        what = f"'{template}' has the placeholder {{{written}}}; known: {listed}.{did_you_mean(name, names)}"
        return [Problem("E204", what, where)]
    return []


def check_required_template(template: str, where: str, known: Iterable[str], example: str) -> list[Problem]:
    """E205 with an example for an empty template, else as `check_template`."""
    if not template:
        return [Problem("E205", "is required and not set", where, f"for example: {example}")]
    return check_template(template, where, known)


def fill_template(template: str, where: str, **values: str) -> str:
    """`template` with the values of its placeholders.

    Raises:
        MlkdError: see `check_template`; the values' names are the known placeholders.

    >>> fill_template("data/{source_language}-{language}.tsv", "path", language="de", source_language="en")
    'data/en-de.tsv'
    """
    problems = check_template(template, where, values)
    if problems:
        raise MlkdError(problems)
    return template.format(**values)
