"""`--help TOPIC`: a group, one of its options, or a key, with what the schema's own documentation says of it."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlkd.cli.help import GROUPS_OF, first_comment
from mlkd.config.composition import compose_config
from mlkd.config.paths import CONFIG_DIR
from mlkd.config.renamed import names_of_today
from mlkd.errors import MlkdError, Problem, did_you_mean

WIDTH = 100
# Options that set keys of any group, and so have none of their own.
WHOLE = ("experiment", "sweep")


def topic_help(kind: str, topic: str) -> str:
    """What a command says to `--help TOPIC`.

    Args:
        kind: train, evaluate or mine.
        topic: a group (`optim`, `loss/ranking`), an option of one (`student=thin_deep`), or a key (`optim.lr`).

    Raises:
        MlkdError: E201 or E202, with the nearest name, where there is no such thing.
    """
    group, _, option = topic.lstrip("+").partition("=")
    is_group = (CONFIG_DIR / group).is_dir() and group.partition("/")[0] in GROUPS_OF[kind]
    lines: list[str] = []
    if is_group:
        lines += _option_lines(group, option)
        if group in WHOLE:
            return "\n".join(lines)
    cfg = _compose(kind, group, option) if is_group else compose_config(kind, [])
    key = group.replace("/", ".")
    keys = dict(_documented(cfg, ""))
    if is_group:
        found = {name: entry for name, entry in keys.items() if name.startswith(f"{key}.")}
    else:
        found = {name: entry for name, entry in keys.items() if name == key or name.startswith(f"{key}.")}
        if not found:
            raise MlkdError(_unknown(kind, group, list(keys)))
    return "\n".join([*lines, *(line for name, entry in found.items() for line in _key_lines(name, *entry))])


def _option_lines(group: str, option: str) -> Iterator[str]:
    files = sorted((CONFIG_DIR / group).glob("*.yaml"))
    if not option:
        yield f"options of {group} ({group}=NAME; --help {group}=NAME prints its keys):"
        for file in files:
            yield f"  {file.stem:<26} {first_comment(file)}"
        if group not in WHOLE:
            yield f"\nkeys of {group}, as composed without another option:"
        return
    names = [file.stem for file in files]
    if option not in names:
        close = difflib.get_close_matches(option, names, n=1, cutoff=0.5)
        what = f"no {group} '{option}'." + (f" Did you mean '{close[0]}'?" if close else "")
        raise MlkdError(Problem("E202", what, remedy=f"{group} is one of: {', '.join(names)}"))
    text = (CONFIG_DIR / group / f"{option}.yaml").read_text(encoding="utf-8").strip()
    yield text if group in WHOLE else first_comment(CONFIG_DIR / group / f"{option}.yaml")
    if group not in WHOLE:
        yield f"\nkeys of {group}={option}:"


def _compose(kind: str, group: str, option: str) -> DictConfig:
    if not option:
        return compose_config(kind, [])
    try:
        return compose_config(kind, [f"{group}=[{option}]" if group == "task" else f"{group}={option}"])
    except (HydraException, OmegaConfBaseException):
        # Not in the defaults list of the command, or only below another option: added at its own place.
        return compose_config(kind, [f"+{group}={option}"])


def documented_keys(kind: str, overrides: Sequence[str] = ()) -> dict[str, tuple[str, str, str]]:
    """Key -> value, type and documentation, of all leaves of a composed configuration."""
    return dict(_documented(compose_config(kind, overrides), ""))


def _documented(node: DictConfig, path: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Key -> value, type and documentation, of all leaves."""
    kind = OmegaConf.get_type(node)
    described = field_descriptions(kind) if dataclasses.is_dataclass(kind) else {}
    types = get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing() and len(child):
            yield from _documented(child, f"{path}{name}.")
            continue
        value = "(required)" if OmegaConf.is_missing(node, name) else _printed(node[name])
        yield (
            f"{path}{name}",
            (value, _type_name(types.get(name, "")), _words(described.get(name, ""), types.get(name))),
        )


def _words(text: str, annotation: Any) -> str:
    """What the schema says of a field; of an enumeration also what it says itself of each value."""
    options = [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, Enum)
    ]
    for option in options:
        if not text or text.startswith("see "):
            text = inspect.getdoc(option) or ""
        for name, comment in re.findall(r"^    (\w+) = [^#\n]+# (.*)$", inspect.getsource(option), re.MULTILINE):
            text += f"\n{name}: {comment}"
    return text


def _printed(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else f"'{value}'" if value == "" else str(value)


def _type_name(annotation: Any) -> str:
    """`int`, `list[str]`, `float | None`, and the names of an enumeration."""
    if isinstance(annotation, UnionType):
        return " | ".join(map(_type_name, annotation.__args__))
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(annotation.__members__)
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def field_descriptions(schema: type[Any]) -> dict[str, str]:
    """Field -> its sentences in the `Args` of the class or of those it extends.

    >>> from mlkd.optim.optimizer import Optim
    >>> field_descriptions(Optim)["lr"], field_descriptions(Optim)["beta2"]
    ('peak learning rate, > 0.', 'of AdamW.')
    """
    found: dict[str, str] = {}
    for base in schema.__mro__:
        section = re.search(r"^Args:\n((?:[ \n].*\n?)*)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        if base is object or section is None:
            continue
        arguments = section[1].split("\n\n")[0]
        for entry in re.split(r"\n(?=    \S)", arguments):
            names, _, text = entry.strip().partition(": ")
            for name in names.split(", "):
                found.setdefault(name.strip(), " ".join(text.split()))
    return found


def _key_lines(name: str, value: str, kind: str, text: str) -> Iterator[str]:
    yield f"  {name}={value}" + (f"   ({kind})" if kind else "")
    first, *values = text.splitlines() or [""]
    yield from textwrap.wrap(first, WIDTH, initial_indent="      ", subsequent_indent="      ")
    for value_words in values:
        yield from textwrap.wrap(value_words, WIDTH, initial_indent="        ", subsequent_indent="          ")


def _unknown(kind: str, topic: str, keys: list[str]) -> Problem:
    if names := names_of_today(topic):
        return Problem("E214", f"'{topic}' is called {' or '.join(names)} today", remedy=f"--help {names[0]}")
    groups = [str(Path(g)) for g in GROUPS_OF[kind]]
    return Problem("E201", f"no group or key '{topic}'.{did_you_mean(topic, [*groups, *keys])}", remedy="see --help")
