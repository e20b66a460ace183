"""Old spellings are answered with the name of today, wherever they stand, and today's names exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import mlkd
from mlkd.config.composition import compose_config
from mlkd.config.overrides import all_keys, check_overrides, check_sweep
from mlkd.config.paths import option_names
from mlkd.config.registry import SCHEMAS
from mlkd.config.renamed import RENAMED, names_of_today
from mlkd.errors import MlkdError

# A value for `*`, and the command of keys that mlkd-train has not.
ANY = "tatoeba"


def every_key() -> set[str]:
    """Keys of all commands with every option of every group, and of every schema behind them."""
    keys: set[str] = set()
    for kind in ("train", "evaluate", "mine"):
        keys |= set(all_keys(compose_config(kind, [])))
    for group, schemas in SCHEMAS.items():
        for schema in schemas.values():
            node = schema if isinstance(schema, DictConfig) else OmegaConf.structured(schema)
            prefix = f"{group.replace('/', '.')}." if group else ""
            names = option_names("task") or [] if group == "task" else [""]
            for name in names:
                keys |= {f"{prefix}{name}.{key}" if name else f"{prefix}{key}" for key in all_keys(node)}
    return keys


def test_names_of_today_exist() -> None:
    known = every_key()
    for old, new in RENAMED.items():
        for name in [new] if isinstance(new, str) else new:
            assert name.replace("*", ANY) in known, f"{old} -> {name}"
        assert names_of_today(old.replace("*", ANY)) != []


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_command_is_answered(prefix: str) -> None:
    with pytest.raises(MlkdError) as caught:
        check_overrides("train", [f"{prefix}hardware.processes=2", "optim.lr=-1"])
    assert "error[E214]: 'hardware.processes' is called hardware.num_processes today" in str(caught.value)
    assert "error[E204]: optim.lr" in str(caught.value)


def test_a_sweep_and_python_are_answered() -> None:
    with pytest.raises(MlkdError, match=r"E214.*'search.trials' is called hpo.trials today"):
        check_sweep("train", ["seed=1,2", "search.trials=3"])
    with pytest.raises(MlkdError, match=r"'search.trials' is called hpo.trials today"):
        mlkd.compose("search.trials=3")


def test_an_experiment_file_is_answered(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhardware:\n  processes: 2\n"
    (tmp_path / "experiment/old.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MlkdError, match=r"experiment/old.*'hardware.processes' is called hardware.num_processes today"):
        mlkd.compose("experiment=old", config_dir=tmp_path)


def test_a_key_that_another_command_has_is_left_alone() -> None:
    config = mlkd.compose("encoder=x", "source=a", "target=b", "search.block_mb=64", command="mine")
    assert config.search.block_mb == 64
