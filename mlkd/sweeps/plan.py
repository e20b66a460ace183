"""Sweep plan: every value of its overrides checked, its jobs in order, its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mlkd.config.composition import compose_config
from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.config.overrides import check_sweep, jobs_with_each_value
from mlkd.sweeps.hpo import Choice, Interval, import_optuna
from mlkd.sweeps.run import Sweep, override_key, sweep_fingerprint


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """What `mlkd-train -m` with these overrides does.

    Raises:
        MlkdError: E2xx, the problems of all values that do not compose.
    """
    check_sweep("train", overrides)
    params = options_params(overrides)
    own = {override_key(text) for text in overrides}
    # A value of the command replaces the option's, at the option's place: Hydra numbers the jobs so.
    swept = [*(text for text in params if override_key(text) not in own), *overrides]
    if params:
        check_sweep("train", swept)
    first_job = next(jobs_with_each_value(swept))
    cfg = compose_config("train", first_job)
    hpo = OmegaConf.to_object(cfg.hpo)
    assert isinstance(hpo, HyperParameterSearch)
    space = search_space(swept)
    places = [text.partition("=")[2].strip("'\"") for text in overrides if override_key(text) == "hydra.sweep.dir"]
    return Sweep(
        parent=Path(cfg.output_dir) / "multirun" / str(cfg.name),
        fingerprint=sweep_fingerprint(OmegaConf.to_yaml(cfg), swept),
        folder=Path(places[-1]) if places else None,
        planned=planned_jobs(first_job, [*params, *overrides]),
        resume=bool(cfg.resume),
        dry_run=bool(cfg.dry_run),
        hpo=hpo,
        space=space,
        constant=[text for text in params if override_key(text) not in own | space.keys()],
    )


def options_params(overrides: Sequence[str]) -> list[str]:
    """What an option such as +sweep=<name> sweeps (`hydra.sweeper.params`)."""
    cfg = compose_config("train", next(jobs_with_each_value(overrides)), with_hydra=True)
    return [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]


def planned_jobs(first_job: Sequence[str], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job in Hydra's order; empty where its sweeper decides as it goes."""
    cfg = compose_config("train", first_job, with_hydra=True)
    if not str(cfg.hydra.sweeper._target_).endswith(BasicSweeper.__name__):
        return []
    texts = [text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/"))]
    try:
        parsed = OverridesParser.create().parse_overrides(texts)
    except HydraException:  # a glob, which only a running Hydra can expand
        return []
    if any(isinstance(override.value(), IntervalSweep) for override in parsed):
        return []
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    return [list(job) for job in jobs]


def search_space(overrides: Sequence[str]) -> dict[str, Interval | Choice]:
    """What a sweep with an interval searches, by key; empty where there is no interval.

    Raises:
        MlkdError: E502 where there is one and Optuna is not installed.
    """
    space: dict[str, Interval | Choice] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            space[key] = Interval(value.start, value.end, log="log" in value.tags)
        elif override.is_discrete_sweep():
            space[key] = Choice(tuple(override.sweep_string_iterator()))
        else:
            space.pop(key, None)
    if not any(isinstance(values, Interval) for values in space.values()):
        return {}
    import_optuna()
    return space
