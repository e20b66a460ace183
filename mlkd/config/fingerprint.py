"""Configuration fingerprint: what decides a run's result, and a name for that."""

from __future__ import annotations

from dataclasses import fields

from mlkd.config.composition import as_flat_dict, as_yaml
from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.config.train_schema import TrainConfig
from mlkd.runtime.hashing import fingerprint

_HPO = tuple(f"hpo.{field.name}" for field in fields(HyperParameterSearch))
NOT_IN_FINGERPRINT = (
    "dry_run",
    "resume",
    "output_dir",
    "cache_dir",
    "hardware.gradient_caching",
    "hardware.num_processes",
    *_HPO,
)


def deciding_values(yaml: str) -> dict[str, object]:
    """The flat configuration without what cannot change a run's result."""
    return {key: value for key, value in as_flat_dict(yaml).items() if key not in NOT_IN_FINGERPRINT}


def config_fingerprint(config: TrainConfig) -> str:
    """Names everything in a configuration that decides the run's result."""
    values = deciding_values(as_yaml(config))
    types = [type(config.student).__name__, type(config.data).__name__, type(config.loss.ranking).__name__]
    return fingerprint([*types, *(f"{key}={values[key]!r}" for key in sorted(values))])
