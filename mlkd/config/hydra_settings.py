"""Settings of Hydra itself: the few that a configuration may change; all others could name code to run.

Hydra instantiates what its own node names (callbacks, launchers, logging handlers), sets environment variables and adds
places to search. Configurations are data, whoever wrote them: what is not listed here is refused before Hydra sees it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mlkd.config.composition import compose_config, leaves
from mlkd.config.paths import EXTRA_CONFIG_DIRS
from mlkd.errors import MlkdError, Problem, did_you_mean

# Beside these, an option's file may say what it sweeps (`sweeper.params`); a command sweeps with -m.
ALLOWED = ("run.dir", "sweep.dir", "sweep.subdir", "job.chdir", "job.num")
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
        key = text.lstrip("+~").partition("=")[0].strip()
        group, _, package = key.partition("@")
        places = [group, *package.split(":")]
        if any(map(_is_hydras, places)) and (package or not _is_allowed_override(group, text)):
            problems.append(_refused(key))
    if problems:
        raise MlkdError(problems)


def check_hydra_node(kind: str, node: DictConfig) -> None:
    """Refuse what files (experiments, options of the user's folder) make of Hydra's own node.

    Args:
        kind: train, evaluate or mine.
        node: `hydra` of one composed job.

    Raises:
        MlkdError: E215, all settings that are not allowed.
    """
    found, params = _settings(node)
    launcher = next((name for name, target in LAUNCHERS.items() if target == found.get("launcher._target_")), "basic")
    before = _plain(kind, launcher)
    changed = [key for key in {**before, **found} if found.get(key, _ABSENT) != before.get(key, _ABSENT)]
    problems = [
        _refused(f"hydra.{key}")
        for key in changed
        if not key.startswith(FILLED_IN) and not _is_allowed(key, found.get(key))
    ]
    if not isinstance(params, dict):
        problems.append(Problem("E215", f"must be a mapping (got {params!r})", "hydra.sweeper.params"))
    else:
        problems += [_refused(str(key)) for key in params if _is_hydras(str(key).lstrip("+~"))]
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
    return _settings(cfg.hydra)[0]


def _settings(node: DictConfig) -> tuple[dict[str, Any], Any]:
    """Key -> value of Hydra's node, and the values of a sweep, which have keys of their own."""
    content: Any = OmegaConf.to_container(node, resolve=False)
    params = content["sweeper"].pop("params", None) or {}
    return dict(leaves(content)), params


def _is_allowed_override(key: str, text: str) -> bool:
    try:
        value = OverridesParser.create().parse_override(text).value()
    except HydraException:
        return False
    if key in ("hydra/launcher", "hydra/sweeper"):
        return value in (LAUNCHERS if key == "hydra/launcher" else SWEEPERS)
    return not text.startswith("~") and _is_allowed(key.removeprefix("hydra."), value)


def _is_allowed(key: str, value: Any) -> bool:
    """Whether a setting may differ from the command's own."""
    if key in ALLOWED:
        return True
    last = key.rpartition(".")[2]
    if key.startswith("launcher.") and not last.startswith("_"):
        is_word = last in LAUNCHER_WORDS and isinstance(value, str) and WORD.fullmatch(value) is not None
        return is_word or value is None or isinstance(value, (int, float))
    return key == "sweeper.max_batch_size" and (value is None or isinstance(value, int))


def _refused(key: str) -> Problem:
    if key in ("hydra/launcher", "hydra/sweeper"):
        names = ", ".join(LAUNCHERS if key == "hydra/launcher" else SWEEPERS)
        return Problem("E215", f"is one of {names}", key)
    allowed = [f"hydra.{name}" for name in ALLOWED]
    what = f"Hydra's own settings can run code and are not taken from a configuration.{did_you_mean(key, allowed)}"
    return Problem("E215", what, key, f"these are: {', '.join(allowed)}, hydra/launcher and the numbers of a launcher")
