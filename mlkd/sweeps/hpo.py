"""Hyper-parameter search: values of the next job from the scores of those before, by Optuna, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.errors import fail
from mlkd.runtime.atomic_files import write_json

TRIALS_FILE = "trials.json"


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`, whole ones where both are; on a logarithmic scale for `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these values, as they are written in an override."""

    values: tuple[str, ...]


Space = Mapping[str, Interval | Choice]
RunTrial = Callable[[int, dict[str, str]], float | None]


@dataclass(slots=True)
class Trial:
    """One job of a search: its values as they are written in overrides, and its score; up is better, None: no score."""

    params: dict[str, str]
    value: float | None = None


def import_optuna() -> Any:
    """The module `optuna`; E502 where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise fail("E502", "a sweep over an interval needs Optuna", remedy='pip install "mlkd[optuna]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def run_search(space: Space, hpo: HyperParameterSearch, folder: Path, run_trial: RunTrial) -> None:
    """Run trial after trial; those in `folder` keep their values, and only those without a score are run again.

    The values of a trial depend on the seed, its number and the trials before it: an interrupted search goes on as if
    it had not been.

    Args:
        space: what is searched, by key.
        hpo: how.
        folder: of the sweep; `trials.json` is kept there.
        run_trial: number and values -> score.
    """
    path = folder / TRIALS_FILE
    trials = read_trials(path)
    for number in range(hpo.trials):
        if number == len(trials):
            trials.append(Trial(ask(space, hpo, trials)))
        if trials[number].value is None:
            write_json(path, [asdict(trial) for trial in trials])
            trials[number].value = run_trial(number, trials[number].params)
            write_json(path, [asdict(trial) for trial in trials])


def read_trials(path: Path) -> list[Trial]:
    """What `run_search` wrote; empty where there is nothing."""
    if not path.is_file():
        return []
    try:
        return [Trial(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise fail(
            "E309", f"no list of trials ({error})", where=str(path), remedy="delete it to search anew"
        ) from error


def ask(space: Space, hpo: HyperParameterSearch, trials: list[Trial]) -> dict[str, str]:
    """Values of the trial behind `trials`."""
    optuna = import_optuna()
    distributions = {key: _distribution(optuna, values) for key, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=1000 * hpo.seed + len(trials), n_startup_trials=hpo.startup_trials)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        if trial.value is not None:
            known = {key: _parse(space[key], text) for key, text in trial.params.items()}
            study.add_trial(optuna.trial.create_trial(params=known, distributions=distributions, value=trial.value))
    asked = study.ask(distributions)
    return {key: value if isinstance(value, str) else repr(value) for key, value in asked.params.items()}


def _distribution(optuna: Any, values: Interval | Choice) -> Any:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    kind = optuna.distributions.IntDistribution if _is_whole(values) else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _parse(values: Interval | Choice, text: str) -> Any:
    if isinstance(values, Choice):
        return text
    return int(text) if _is_whole(values) else float(text)


def _is_whole(interval: Interval) -> bool:
    return isinstance(interval.low, int) and isinstance(interval.high, int)
