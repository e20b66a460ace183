"""From YAML files and overrides to live configuration objects, and back to YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.mine_schema import MineConfig
from mlkd.config.paths import CONFIG_DIR, EXTRA_CONFIG_DIRS
from mlkd.config.registry import register_schemas
from mlkd.config.renamed import renamed_problem
from mlkd.config.train_schema import TrainConfig, range_problems
from mlkd.errors import MlkdError, Problem, did_you_mean

Config = TypeVar("Config", TrainConfig, EvaluateConfig, MineConfig)


def compose_config(primary: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose `primary` (train, evaluate or mine) outside of a Hydra application, `with_hydra` its own node too.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: at the first override that does not fit.
    """
    register_schemas()
    if GlobalHydra.instance().is_initialized():
        return compose(primary, list(overrides), return_hydra_config=with_hydra)
    folders = ",".join(f"'file://{folder}'" for folder in EXTRA_CONFIG_DIRS)
    searched = [f"hydra.searchpath=[{folders}]"] if folders else []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(primary, [*overrides, *searched], return_hydra_config=with_hydra)


def build_config(cfg: DictConfig, kind: type[Config]) -> Config:
    """Turn a composed configuration into live objects.

    Raises:
        MlkdError: all problems of all nodes together, each with its full key.
    """
    if unresolved := list(_unresolved(cfg, "")):
        raise MlkdError(unresolved)
    problems = [
        Problem("E205", f"is required and not set. Example: {key}=...", key)
        for key in sorted(OmegaConf.missing_keys(cfg))
    ]
    _check_node(cfg, "", problems)
    if problems:
        raise MlkdError(problems)
    result = OmegaConf.to_object(cfg)
    assert isinstance(result, kind)
    return result


def _unresolved(node: DictConfig | ListConfig, path: str) -> Iterator[Problem]:
    """E203 for each value that names another key or a variable which is not there."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        where = f"{path}[{key}]" if isinstance(node, ListConfig) else f"{path}.{key}".lstrip(".")
        try:
            child = None if OmegaConf.is_missing(node, key) else node[key]
        except InterpolationResolutionError as error:
            what = str(error).splitlines()[0]
            yield Problem("E203", f"'{node._get_node(key)._value()}' does not resolve: {what}", where)  # type: ignore[union-attr]
            continue
        if isinstance(child, (DictConfig, ListConfig)):
            yield from _unresolved(child, where)


def _check_node(node: DictConfig, path: str, problems: list[Problem]) -> bool:
    """Convert nodes from the leaves up, so that one bad node hides no other; returns whether all went well.

    A bad child is replaced by its schema's default (or left out of a dict) to judge the rest of its parent; what
    would relate to that child (E209) is then not judged. The root has required children: its own ranges are judged
    without building it.
    """
    bad = []
    unknown = _unknown_keys(node)
    problems.extend(
        renamed_problem(f"{path}{k}") or Problem("E201", f"unknown key.{did_you_mean(k, names)}", f"{path}{k}")
        for k, names in unknown
    )
    node = _without(node, [key for key, _ in unknown])
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not _check_node(child, f"{path}{key}.", problems):
            bad.append(key)
    if bad and OmegaConf.get_type(node) is TrainConfig:
        problems.extend(range_problems(node))
        return False
    if bad:
        node = _with_defaults(node, bad)
    try:
        OmegaConf.to_object(node)
    except MlkdError as error:
        found = [p for p in error.problems if not (bad and (p.code == "E209" or p.where in bad))]
        problems.extend(dataclasses.replace(p, where=_full_key(path, p.where)) for p in found)
        return False
    except MissingMandatoryValue:
        return False
    return not (bad or unknown)


def _unknown_keys(node: DictConfig) -> list[tuple[str, list[str]]]:
    """Keys that were added (`+key=value`) to a node whose schema has no such field, each with the names it has."""
    schema = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(schema):
        return []
    names = [f.name for f in dataclasses.fields(schema)]
    return [(key, names) for key in map(str, node) if key not in names]


def _without(node: DictConfig, keys: Sequence[str]) -> DictConfig:
    if not keys:
        return node
    copy: DictConfig = node.copy()
    OmegaConf.set_struct(copy, False)
    for key in keys:
        copy._content.pop(key)  # type: ignore[union-attr]  # a structured node refuses `del`
    return copy


def _with_defaults(node: DictConfig, keys: Sequence[Any]) -> DictConfig:
    copy: DictConfig = node.copy()
    schema = OmegaConf.get_type(node)
    with open_dict(copy):
        for key in keys:
            if dataclasses.is_dataclass(schema):
                copy[key] = OmegaConf.structured(schema)[key]
            else:
                del copy[key]
    return copy


def _full_key(path: str, where: str) -> str:
    # Relations between groups carry their full key already.
    return f"{path}{where}" if where else path.rstrip(".")


def as_yaml(config: TrainConfig | EvaluateConfig) -> str:
    """Every value of a configuration as YAML, enums by name."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def as_flat_dict(yaml: str) -> dict[str, Any]:
    """`{"optim.lr": 1e-3, ...}` of what `as_yaml` wrote."""
    return dict(leaves(OmegaConf.to_container(OmegaConf.create(yaml))))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested mappings that is no mapping, or an empty one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
