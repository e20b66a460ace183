"""Hydra's own settings: the few that are allowed, and every way that was found to make a configuration run code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlkd.cli.main import run
from mlkd.config.hydra_settings import ALLOWED, LAUNCHERS
from mlkd.config.overrides import check_overrides, check_sweep
from mlkd.config.paths import EXTRA_CONFIG_DIRS
from mlkd.errors import MlkdError

# Each names code, a file, an environment variable, or a place to load more from.
ATTACKS = [
    "+hydra.callbacks.x._target_=pathlib.Path.unlink",
    "+hydra.callbacks.x={_target_:builtins.open,file:{FILE},mode:w}",
    "hydra.job_logging.handlers.x.class=os.system",
    "+hydra.job_logging.handlers={x:{class:os.system}}",
    "hydra/job_logging=colorlog",
    "hydra.hydra_logging.version=2",
    "hydra.searchpath=[pkg://evil]",
    "+hydra.job.env_set.LD_PRELOAD=/tmp/x.so",
    "hydra.job.env_copy=[HOME]",
    "hydra.launcher._target_=evil.Launcher",
    "++hydra.launcher._target_=evil.Launcher",
    "hydra.sweeper._target_=evil.Sweeper",
    "hydra/launcher=evil",
    "hydra/sweeper=evil",
    "+hydra/callbacks=evil",
    "hydra.launcher.setup=[rm -rf x]",
    "+hydra.launcher.python=sh",
    "hydra.output_subdir=x",
    "hydra.verbose=true",
    "hydra.mode=MULTIRUN",
    "~hydra.run",
    "+hydra.sweeper.params.seed='1,2'",
    "hydra.help.template=x",
    "+teacher@hydra.callbacks.x=folder",
    "+experiment@hydra=x",
]
FROM_A_FILE = [
    "hydra:\n  callbacks:\n    x:\n      _target_: pathlib.Path.touch\n      _args_: ['{MARK}']\n",
    "hydra:\n  callbacks:\n    x: {_target_: builtins.open, file: '{MARK}', mode: w}\n",
    "hydra:\n  job_logging:\n    handlers:\n      x: {class: logging.FileHandler, filename: '{MARK}'}\n",
    "hydra:\n  job:\n    env_set: {LD_PRELOAD: '{MARK}'}\n",
    "hydra:\n  launcher: {_target_: pathlib.Path.touch}\n",
    "hydra:\n  sweeper: {_target_: pathlib.Path.touch}\n",
    "hydra:\n  sweeper:\n    params:\n      +hydra.callbacks.x._target_: pathlib.Path.touch\n",
]


@pytest.mark.parametrize("kind", ["train", "evaluate", "mine"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_override_that_could_run_code(kind: str, attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([attack], ["-m", attack], ["--cfg", "job", attack], ["seed=1", attack, "--info"]):
        assert run(kind, arguments) == 2, arguments
        assert re.search(r"error\[E215\]: (teacher@|experiment@)?hydra", capsys.readouterr().err)


@pytest.mark.parametrize("text", FROM_A_FILE)
@pytest.mark.parametrize("way", ["single", "sweep", "shown"])
def test_an_experiment_file_that_could_run_code(
    tmp_path: Path, text: str, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "experiment").mkdir()
    content = "# @package _global_\n" + text.replace("{MARK}", str(mark))
    (tmp_path / "experiment" / "evil.yaml").write_text(content)
    arguments = ["--config-dir", str(tmp_path), "+experiment=evil", f"output_dir={tmp_path}/out"]
    more = {"single": [], "sweep": ["-m", "seed=1,2"], "shown": ["--cfg", "job"]}[way]
    try:
        assert run("train", [*arguments, *more]) == 2
    finally:
        EXTRA_CONFIG_DIRS.clear()
    assert re.search(
        r"error\[E215\]: \+?hydra\.(callbacks|job|job_logging|launcher|sweeper)\.", capsys.readouterr().err
    )
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_a_launcher_of_the_users_folder_that_could_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option's name is one of the list, its content another one's."""
    mark = tmp_path / "mark"
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "joblib.yaml").write_text(f"_target_: pathlib.Path.touch\n_args_: ['{mark}']\n")
    try:
        assert run("train", ["--config-dir", str(tmp_path), "-m", "hydra/launcher=joblib", "seed=1,2"]) == 2
    finally:
        EXTRA_CONFIG_DIRS.clear()
    assert "error[E215]: hydra.launcher._target_" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("allowed", ["hydra.run.dir=x", "hydra.sweep.dir=x", "hydra.sweep.subdir=x"])
def test_what_is_allowed(allowed: str) -> None:
    assert check_overrides("train", [allowed]).seed == 1
    check_sweep("train", [allowed, "seed=1,2"])


def test_a_file_of_ones_own_is_not_refused_for_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    lines = [
        "# @package _global_",
        "seed: 7",
        "hydra:",
        "  sweep: {dir: elsewhere}",
        "  sweeper:",
        "    params: {optim.lr: '1,2'}",
    ]
    (tmp_path / "experiment" / "mine.yaml").write_text("\n".join(lines))
    EXTRA_CONFIG_DIRS[:] = [tmp_path]
    try:
        assert check_overrides("train", ["+experiment=mine"]).seed == 7
        check_sweep("train", ["+experiment=mine", "seed=1,2"])
    finally:
        EXTRA_CONFIG_DIRS.clear()


def test_the_message_names_what_is_allowed() -> None:
    with pytest.raises(MlkdError, match=r"Did you mean 'hydra\.sweep\.dir'") as caught:
        check_overrides("train", ["hydra.swep.dir=x"])
    assert all(f"hydra.{name}" in str(caught.value) for name in ALLOWED)
    with pytest.raises(MlkdError) as caught:
        check_overrides("train", ["hydra/launcher=ray"])
    assert all(name in str(caught.value) for name in LAUNCHERS)
