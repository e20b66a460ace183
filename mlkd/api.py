"""The Python interface: what the commands do, from a script or a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlkd.config.alternatives import without_presets
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.mine_schema import MineConfig
from mlkd.config.overrides import check_overrides
from mlkd.config.paths import EXTRA_CONFIG_DIRS
from mlkd.config.quoting import as_hydra_reads
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import fail
from mlkd.evaluation.run import evaluate as run_evaluation
from mlkd.mining.run import MiningResult
from mlkd.mining.run import mine as run_mining
from mlkd.models.encoder import Encoder
from mlkd.models.spec import ScoredEncoder
from mlkd.report.results import Results
from mlkd.runtime.devices import Device, Hardware
from mlkd.training.run import train as run_training
from mlkd.training.run_directory import reserved_run_directory


def compose(*overrides: str, command: str = "train", config_dir: str | Path | None = None) -> Any:
    """The configuration that a command line makes, checked as a whole.

    Args:
        overrides: as they are typed, `group=option` and `key=value`; `experiment=` needs no plus.
        command: train, evaluate or mine.
        config_dir: folder of options and experiments of your own, as `--config-dir`.

    Returns:
        A TrainConfig, an EvaluateConfig or a MineConfig.

    Raises:
        MlkdError: E2xx, all problems together.
    """
    commands = ("train", "evaluate", "mine")
    if command not in commands:
        raise fail("E204", f"must be one of {', '.join(commands)} (got '{command}')", where="command")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise fail("E202", f"no such folder '{config_dir}' (cwd={Path.cwd()})", where="config_dir")
    before = list(EXTRA_CONFIG_DIRS)
    EXTRA_CONFIG_DIRS[:] = [] if config_dir is None else [Path(config_dir).resolve()]
    try:
        return check_overrides(command, without_presets(as_hydra_reads(overrides)))
    finally:
        EXTRA_CONFIG_DIRS[:] = before


def train(config: TrainConfig, folder: str | Path = "") -> Path:
    """Train a student, evaluate it and write its report.

    Args:
        config: of the run; see `compose`.
        folder: of the run; empty continues the unfinished run of this configuration under `<output_dir>/<name>`, or
            makes a new folder there, as the command does.

    Returns:
        The run folder; `load_encoder` opens its student.

    Raises:
        MlkdError: see `mlkd.errors`.
        KeyboardInterrupt: after a signal, once the state is saved; the same call continues.
    """
    with reserved_run_directory(config, folder) as path:
        return run_training(config, path)


def evaluate(config: EvaluateConfig) -> Results | None:
    """Score encoders, or put earlier results side by side; what was scored, None where texts were exported.

    Raises:
        MlkdError: E3xx for data, E4xx for models, all of them before the first text is encoded.
    """
    return run_evaluation(config)


def mine(config: MineConfig) -> MiningResult:
    """Find pairs of translations in two files of sentences; writes them, best first.

    Raises:
        MlkdError: E3xx for text, E4xx for the encoder, E5xx for the output, before anything is encoded.
    """
    return run_mining(config)


def load_encoder(model: str | Path, *, device: str = "auto", **settings: Any) -> Encoder:
    """An encoder, ready for `encode(list of texts)`, which gives float32 (N, D) on the CPU.

    Args:
        model: run folder, model folder, hub id, `package:<name>`, or vectors computed elsewhere.
        device: auto, cpu or cuda.
        settings: of `mlkd.models.spec.EncoderSettings`: pooling, max_length, layer, prompt, dtype, revision, ...

    Raises:
        MlkdError: E4xx where there is no such model, E5xx where there is no such device.
    """
    if device not in Device.__members__:
        raise fail("E204", f"must be one of {', '.join(Device.__members__)} (got '{device}')", where="device")
    hardware = Hardware(device=Device[device])
    return ScoredEncoder.parse({"model": str(model), **settings}).open(hardware, hardware.resolve())
