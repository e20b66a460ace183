"""Settings of Hydra itself: the few that a configuration may change; all others could name code to run.

Hydra instantiates what its own node names (callbacks, launchers, logging handlers), sets environment variables and adds
places to search. Configurations are data, whoever wrote them: what is not listed here is refused before Hydra sees it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from mlkd.config.composition import compose_config
from mlkd.config.paths import EXTRA_CONFIG_DIRS
from mlkd.errors import MlkdError, Problem, did_you_mean

# Folders of runs and sweeps, and a sweep's values, whose keys are checked like those of the command.
ALLOWED = ("run.dir", "sweep.dir", "sweep.subdir", "sweeper.params", "job.chdir", "job.num")
# Launchers by their option names, with the class that the option stands for.
LAUNCHERS = {
    "basic": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
}
SWEEPERS = {"basic": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}
# Of a launcher: numbers and switches of any name, and these, which name a queue or a place.
LAUNCHER_WORDS = ("partition", "qos", "account", "constraint", "gres", "exclude", "comment", "name", "backend")
WORD = re.compile(r"[\w.,:+@/ -]*")
# What composing itself fills in. Places to search are those of --config-dir: overrides of them are refused as text, and
# Hydra takes them from no other file than a command's own.
FILLED_IN = (
    "searchpath",
    "overrides",
    "runtime",
    "job.override_dirname",
    "job.config_name",
    "job.name",
    "job.id",
    "mode",
)


def check_hydra_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of Hydra's own node that are not allowed; they are read as text, so that nothing is composed.

    Raises:
        MlkdError: E215, all of them.
    """
    problems = []
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        group, _, package = key.strip().partition("@")
        if _is_hydras(group) and not package:
            problems += [] if _is_allowed_override(group, value.strip()) else [_refused(group)]
        elif _is_hydras(group) or any(_is_hydras(part) for part in package.split(":")):
            problems.append(_refused(key.strip()))
    if problems:
        raise MlkdError(problems)


def check_hydra_node(kind: str, overrides: Sequence[str]) -> None:
    """Refuse what files (experiments, options of the user's folder) make of Hydra's own node.

    Args:
        kind: train, evaluate or mine.
        overrides: of one job, without sweeps.

    Raises:
        MlkdError: E215, all settings that are not allowed.
    """
    cfg = compose_config(kind, overrides, with_hydra=True)
    found = dict(_leaves(OmegaConf.to_container(cfg.hydra, resolve=False)))
    launcher = next((name for name, target in LAUNCHERS.items() if target == found.get("launcher._target_")), "basic")
    before = _plain(kind, launcher)
    changed = [key for key in {**before, **found} if found.get(key, _ABSENT) != before.get(key, _ABSENT)]
    problems = [_refused(f"hydra.{key}") for key in changed if not _is_allowed(key, found.get(key))]
    params = found.get("sweeper.params") or {}
    if not isinstance(params, Mapping):
        problems.append(Problem("E215", f"must be a mapping (got {params!r})", "hydra.sweeper.params"))
    else:
        problems += [_refused(str(key)) for key in params if re.match(r"[+~]*hydra\b", str(key))]
    if problems:
        raise MlkdError(problems)


_ABSENT = object()


def _is_hydras(key: str) -> bool:
    return re.match(r"hydra([./]|$)", key) is not None


@functools.cache
def _plain(kind: str, launcher: str) -> dict[str, Any]:
    """Hydra's node of a command alone, with nothing of the user's folder, which may shadow a launcher's option."""
    before = list(EXTRA_CONFIG_DIRS)
    EXTRA_CONFIG_DIRS.clear()
    try:
        chosen = [] if launcher == "basic" else [f"hydra/launcher={launcher}"]
        cfg = compose_config(kind, chosen, with_hydra=True)
    finally:
        EXTRA_CONFIG_DIRS[:] = before
    return dict(_leaves(OmegaConf.to_container(cfg.hydra, resolve=False)))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node and path != "sweeper.params.":
        for name, value in node.items():
            yield from _leaves(value, f"{path}{name}.")
    else:
        yield path.removesuffix("."), node


def _is_allowed_override(key: str, value: str) -> bool:
    if key in ("hydra/launcher", "hydra/sweeper"):
        return value in (LAUNCHERS if key == "hydra/launcher" else SWEEPERS)
    name = key.removeprefix("hydra.")
    if name in ALLOWED and name != "sweeper.params":  # an option's; a command sweeps with -m
        return True
    if name.startswith("launcher.") and not name.rpartition(".")[2].startswith("_"):
        return name.rpartition(".")[2] in LAUNCHER_WORDS or _is_number(value)
    return name == "sweeper.max_batch_size" and _is_number(value)


def _is_allowed(key: str, value: Any) -> bool:
    """Whether a composed setting may differ from the command's own."""
    if key.startswith(FILLED_IN) or key in ALLOWED:
        return True
    last = key.rpartition(".")[2]
    if key.startswith("launcher.") and not last.startswith("_"):
        is_word = last in LAUNCHER_WORDS and isinstance(value, str) and WORD.fullmatch(value) is not None
        return is_word or value is None or isinstance(value, (int, float))
    return key == "sweeper.max_batch_size" and (value is None or isinstance(value, int))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"null|true|false|[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", text, re.IGNORECASE) is not None


def _refused(key: str) -> Problem:
    if key in ("hydra/launcher", "hydra/sweeper"):
        names = ", ".join(LAUNCHERS if key == "hydra/launcher" else SWEEPERS)
        return Problem("E215", f"is one of {names}", key)
    allowed = [f"hydra.{name}" for name in ALLOWED]
    what = f"Hydra's own settings can run code and are not taken from a configuration.{did_you_mean(key, allowed)}"
    return Problem("E215", what, key, f"these are: {', '.join(allowed)}, hydra/launcher and the numbers of a launcher")
