"""Diagnosis of overrides that do not compose: every reason why, with the nearest valid name for each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mlkd.config.composition import build_config, compose_config
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.hydra_settings import check_hydra_node, check_hydra_overrides
from mlkd.config.mine_schema import MineConfig
from mlkd.config.paths import CONFIG_DIR, option_names
from mlkd.config.renamed import renamed_problem
from mlkd.config.train_schema import TrainConfig
from mlkd.config.yaml_problems import not_utf8, yaml_problem
from mlkd.errors import MlkdError, Problem, did_you_mean

SCHEMA_OF: dict[str, Any] = {"train": TrainConfig, "evaluate": EvaluateConfig, "mine": MineConfig}


def check_overrides(kind: str, overrides: Sequence[str]) -> Any:
    """The live configuration that `overrides` make.

    Raises:
        MlkdError: E2xx, all problems that can be told apart.
    """
    check_hydra_overrides(overrides)
    try:
        cfg = compose_config(kind, overrides, with_hydra=True)
    except yaml.MarkedYAMLError as error:
        raise MlkdError(yaml_problem(error)) from error
    except UnicodeDecodeError as error:
        raise MlkdError(not_utf8()) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: `group=null`
        raise MlkdError(list(diagnose(kind, overrides, error))) from error
    return build_config(without_hydra(kind, cfg), SCHEMA_OF[kind])


def without_hydra(kind: str, cfg: DictConfig) -> DictConfig:
    """The command's own part of a composed configuration, once Hydra's was looked at.

    Raises:
        MlkdError: E215 for settings of Hydra that are not allowed.
    """
    check_hydra_node(kind, cfg.hydra)
    with open_dict(cfg):
        del cfg.hydra
    return cfg


def check_sweep(kind: str, overrides: Sequence[str]) -> None:
    """Refuse a sweep of which a job would not compose, or with a value that no job can take.

    What a job makes of its values together is its own affair.

    Raises:
        MlkdError: E2xx, the problems of all values.
    """
    check_hydra_overrides(overrides)
    if globs := glob_problems(overrides):
        raise MlkdError(globs)
    problems: dict[Problem, None] = {}
    passing: set[Problem] = set()
    for job in jobs_with_each_value(overrides):
        try:
            cfg = without_hydra(kind, compose_config(kind, job, with_hydra=True))
            for problem in outside_range(kind, cfg):
                if problem not in problems and problem not in passing:
                    if is_lasting(problem, kind, overrides, job):
                        problems[problem] = None
                    else:
                        passing.add(problem)
        except MlkdError as error:
            problems |= dict.fromkeys(error.problems)
        except yaml.MarkedYAMLError as error:
            problems[yaml_problem(error)] = None
        except UnicodeDecodeError:
            problems[not_utf8()] = None
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            problems |= dict.fromkeys(diagnose(kind, job, error))
    if problems:
        raise MlkdError(problems)


def glob_problems(overrides: Sequence[str]) -> list[Problem]:
    """E208 for Hydra's glob(), which asks for options that only Hydra's own job knows."""
    found = re.compile(r"^[^=]*=\s*glob\(")
    what = "glob() is not supported in a sweep"
    remedy = "name the options, e.g. loss=mse,cosine; --help GROUP lists them"
    return [Problem("E208", what, text.partition("=")[0], remedy) for text in overrides if found.match(text)]


def outside_range(kind: str, cfg: DictConfig) -> list[Problem]:
    """The E203 and E204 of a composed configuration."""
    try:
        build_config(cfg, SCHEMA_OF[kind])
    except MlkdError as error:
        return [p for p in error.problems if p.code in ("E203", "E204")]
    return []


def is_lasting(problem: Problem, kind: str, overrides: Sequence[str], job: Sequence[str]) -> bool:
    """Whether a problem of this job is one of a value in the command, and stays whichever other value is changed."""
    is_cause = [text.partition("=")[0].lstrip("+") == problem.where for text in job]
    if not any(is_cause):
        return False
    fixed = [text if cause else own for text, own, cause in zip(job, overrides, is_cause, strict=True)]
    return all(problem in outside_range(kind, compose_config(kind, other)) for other in jobs_with_each_value(fixed))


def jobs_with_each_value(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Overrides of as few jobs of a sweep as have each of its values once: the first of all, then one changed."""
    values: list[list[str]] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            values.append([text])  # told by `diagnose`
            continue
        key, value = override.get_key_element(), override.value()
        if override.is_discrete_sweep():
            values.append([f"{key}={v}" for v in override.sweep_string_iterator()])
        elif isinstance(value, IntervalSweep):
            values.append([f"{key}={value.start}", f"{key}={value.end}"])
        else:
            values.append([text])
    first = [choices[0] for choices in values]
    yield first
    for position, choices in enumerate(values):
        for value in choices[1:]:
            yield [*first[:position], value, *first[position + 1 :]]


def diagnose(kind: str, overrides: Sequence[str], error: Exception) -> Iterator[Problem]:
    """Try each override by itself on what composes; `error` is told where no single override is at fault."""
    found = False
    parsed: list[tuple[str, Override]] = []
    for text in overrides:
        try:
            parsed.append((text, OverridesParser.create().parse_override(text)))
        except HydraException:
            found = True
            yield Problem(
                "E208",
                f"cannot read the override '{text}'",
                remedy="quote values that hold =, spaces, braces or letters beyond ASCII: key='\"value\"'",
            )
    groups = [(text, o) for text, o in parsed if is_group(o.key_or_group)]
    good_groups: list[str] = []
    for text, override in groups:
        problem = group_problem(override)
        if problem is None:
            good_groups.append(text)
        else:
            found = True
            yield problem
    values = [(text, o) for text, o in parsed if not is_group(o.key_or_group) and not text.startswith("hydra")]
    try:
        base = compose_config(kind, good_groups)
    except (HydraException, OmegaConfBaseException) as base_error:
        yield composing_problem(base_error)
        return
    good_values: list[str] = []
    for text, override in values:
        problem = value_problem(kind, good_groups, base, text, override)
        if problem is None:
            good_values.append(text)
        else:
            found = True
            yield problem
    if found:
        yield from range_problems(kind, [*good_groups, *good_values])
    else:
        yield composing_problem(error)


def range_problems(kind: str, overrides: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the values that do compose, as far as it cannot come from those that do not."""
    try:
        build_config(compose_config(kind, overrides), SCHEMA_OF[kind])
    except MlkdError as error:
        yield from (p for p in error.problems if p.code in ("E201", "E204", "E206", "E214"))
    except (HydraException, OmegaConfBaseException, ValueError):
        return  # overrides that fit one by one and not together are told by what composing said first


def is_group(key: str) -> bool:
    """Whether a key names a folder of configs, such as `student` or `loss/ranking`."""
    return option_names(key) is not None


def group_problem(override: Override) -> Problem | None:
    """E202 for an option that does not exist."""
    group = override.key_or_group
    options = option_names(group) or []
    value = override.value()
    if value is None and not override.is_delete():
        return Problem("E202", f"'{group}=null' names no option", remedy=f"{group} is one of: {', '.join(options)}")
    chosen = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    for name in chosen:
        if not override.is_delete() and name not in options:
            close = ", ".join(difflib.get_close_matches(name, options, n=3, cutoff=0.5))
            return Problem(
                "E202",
                f"no {group} '{name}'." + (f" Close: {close}." if close else ""),
                remedy=f"{group} is one of: {', '.join(options)}",
            )
    return None


def value_problem(kind: str, groups: Sequence[str], base: DictConfig, text: str, override: Override) -> Problem | None:
    """E201 for an unknown key, E214 for one of another name today, E203 for a value of the wrong type."""
    key = override.key_or_group
    keys = all_keys(base)
    if key not in keys and (renamed := renamed_problem(key)) is not None:
        return renamed
    if key not in keys and not (override.is_add() and parent_is_open(base, key)):
        hint = did_you_mean(key, keys)
        last = key.rsplit(".", 1)[-1]
        if not hint and (same := [k for k in keys if k.rsplit(".", 1)[-1] == last]):
            # The key nearest to the root is the one people leave the path out of.
            hint = f" Did you mean '{min(same, key=lambda k: k.count('.'))}'?"
        return Problem("E201", f"unknown key '{key}'.{hint}", remedy="--cfg job prints all keys")
    try:
        compose_config(kind, [*groups, text])
    except (HydraException, OmegaConfBaseException) as error:
        return Problem("E203", f"'{text}' does not fit: {type_reason(error)}", key)
    return None


def parent_is_open(base: DictConfig, key: str) -> bool:
    """Whether a new key may be added there: below a plain dict, such as task.<name>."""
    parent = OmegaConf.select(base, key.rsplit(".", 1)[0]) if "." in key else None
    return isinstance(parent, DictConfig) and OmegaConf.get_type(parent) is dict


def all_keys(node: DictConfig, path: str = "") -> list[str]:
    """Every key of a composed configuration, nodes and leaves, dotted."""
    keys = []
    for name in map(str, node):
        keys.append(f"{path}{name}")
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            keys += all_keys(child, f"{path}{name}.")
    return keys


def composing_problem(error: Exception) -> Problem:
    """What Hydra says of the files it composes: E201 or E214 for a key, E203 for a value, else E202."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    match = re.fullmatch(r"In '(.+)': (\w+) raised while composing config:", lines[0])
    if match is None or len(lines) < 2:
        return Problem("E202", first_line(error))
    file = CONFIG_DIR / f"{match[1]}.yaml"
    code = "E201" if match[2] in ("ConfigKeyError", "ConfigAttributeError") else "E203"
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
    where = str(file) if file.is_file() else match[1]
    if code == "E201" and (renamed := renamed_problem(key, where)) is not None:
        return renamed
    return Problem(code, f"{key}: {lines[1]}" if key else lines[1], where)


def first_line(error: Exception) -> str:
    """The first line of a library's message, its cause where it has one."""
    return str(error.__cause__ or error).strip().split("\n")[0]


def type_reason(error: Exception) -> str:
    """OmegaConf's reason without its internals."""
    return first_line(error)
