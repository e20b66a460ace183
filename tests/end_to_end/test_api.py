"""The Python interface: imported in a moment, and the same runs, checks and folders as the commands."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mlkd
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.mine_schema import MineConfig
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError


def test_import_takes_a_moment() -> None:
    program = """
import sys
import mlkd
assert dir(mlkd) == mlkd.__all__ and mlkd.__version__
heavy = {"torch", "numpy", "hydra", "omegaconf", "transformers", "datasets"} & set(sys.modules)
assert not heavy, heavy
mlkd.train
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mlkd.trian  # noqa: B018


def test_compose_gives_what_the_command_line_gives() -> None:
    typed = ["experiment=lealla_small", "optim.lr=3e-4", "data=tsv", "data.languages=[de]"]
    config = mlkd.compose(*typed, "data.path=a b/en-{language}.tsv")
    assert isinstance(config, TrainConfig)
    assert (config.name, config.optim.lr, config.data.path) == ("lealla_small", 3e-4, "a b/en-{language}.tsv")
    assert isinstance(mlkd.compose("checkpoint=x", command="evaluate"), EvaluateConfig)
    mining = mlkd.compose("encoder=x", "source=a.txt", "target=b.txt", command="mine")
    assert isinstance(mining, MineConfig)


def test_a_number_of_steps_takes_the_place_of_preset_epochs() -> None:
    config = mlkd.compose("optim.max_steps=5", "optim.warmup_steps=2")
    assert (config.optim.max_steps, config.optim.epochs) == (5, None)
    assert (config.optim.warmup_steps, config.optim.warmup_ratio) == (2, None)
    assert mlkd.compose("experiment=lealla_small", "optim.epochs=3").optim.max_steps is None
    with pytest.raises(MlkdError, match="set only one of max_steps"):
        mlkd.compose("optim.max_steps=5", "optim.epochs=3")


@pytest.mark.parametrize(
    ("overrides", "settings", "words"),
    [
        (("optim.lr=-1", "optm.lr=1"), {}, "error[E204]: optim.lr"),
        ((), {"command": "eval"}, "command: must be one of train, evaluate, mine (got 'eval')"),
        ((), {"config_dir": "no/such/folder"}, "no such folder 'no/such/folder'"),
    ],
)
def test_compose_refuses(overrides: tuple[str, ...], settings: dict[str, str], words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        mlkd.compose(*overrides, **settings)
    assert words in str(caught.value)


def test_compose_with_a_folder_of_experiments(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\noptim:\n  lr: 0.25\n", encoding="utf-8")
    assert mlkd.compose("experiment=mine", config_dir=tmp_path).optim.lr == 0.25
    with pytest.raises(MlkdError, match="no experiment 'mine'"):
        mlkd.compose("experiment=mine")


@pytest.mark.slow
def test_train_then_evaluate_then_mine(toy: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger("mlkd").handlers)
    argv = list(sys.argv)
    config = toy.config(tmp_path / "out", "optim.max_steps=2")
    run = mlkd.train(config)
    assert run.parent == tmp_path / "out/toy"
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert mlkd.train(config, run) == run  # finished already: nothing is done again
    assert mlkd.train(config) != run  # as the command, which starts a new run
    assert (list(logging.getLogger("mlkd").handlers), sys.argv) == (handlers, argv)

    results = mlkd.evaluate(
        mlkd.compose(f"checkpoint={run}", "task=tatoeba", f"output_dir={tmp_path / 'eval'}", command="evaluate")
    )
    assert results is not None
    assert results.systems

    encoder = mlkd.load_encoder(run, device="cpu")
    vectors = encoder.encode(["Hello!", "Hallo!"])
    assert vectors.dtype is torch.float32
    assert vectors.shape == (2, encoder.dimension)
    with pytest.raises(MlkdError, match="must be one of auto, cpu, cuda"):
        mlkd.load_encoder(run, device="tpu")

    for name, text in (("a", "Hello!\nGood morning.\n"), ("b", "Hallo!\nGuten Morgen.\n")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    files = [f"source={tmp_path / 'a.txt'}", f"target={tmp_path / 'b.txt'}", f"output={tmp_path / 'ab.tsv'}"]
    mined = mlkd.mine(mlkd.compose(f"encoder={run}", *files, f"cache_dir={tmp_path / 'cache'}", command="mine"))
    assert mined.output == tmp_path / "ab.tsv"
    assert len((tmp_path / "ab.tsv").read_text(encoding="utf-8").splitlines()) >= 1


def test_a_refused_run_leaves_no_folder(toy: Any, tmp_path: Path) -> None:
    config = toy.config(tmp_path / "out", f"teacher.model={tmp_path / 'nothing'}")
    with pytest.raises(MlkdError, match="E401"):
        mlkd.train(config)
    assert not (tmp_path / "out/toy").exists()
