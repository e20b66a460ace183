"""The console scripts: help and version without heavy imports, all configuration errors at once, exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlkd.errors import EXIT_INTERRUPTED, MlkdError, fail

if TYPE_CHECKING:
    from omegaconf import DictConfig
from mlkd.cli.arguments import has_own_folder, multirun_first, names_sweep, quote, quote_if_needed, rewrite_experiment
from mlkd.cli.help import help_text, version_text


def train_main() -> None:
    """Entry point of mlkd-train."""
    sys.exit(run("train", sys.argv[1:]))


def evaluate_main() -> None:
    """Entry point of mlkd-eval."""
    sys.exit(run("evaluate", sys.argv[1:]))


def mine_main() -> None:
    """Entry point of mlkd-mine."""
    sys.exit(run("mine", sys.argv[1:]))


def run(kind: str, arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code (see `mlkd.errors`)."""
    if {"--help", "-h"} & set(arguments):
        print(help_text(kind))
        return 0
    if "--version" in arguments:
        print(version_text())
        return 0
    try:
        start(kind, rewrite_experiment(arguments))
    except MlkdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        return int(getattr(interrupt, "exit_code", EXIT_INTERRUPTED))
    return 0


def start(kind: str, arguments: list[str]) -> None:
    """Check the configuration as a whole, then hand over to Hydra.

    Raises:
        MlkdError: E2xx with all problems, or whatever the command itself raises.
    """
    from hydra._internal.utils import get_args_parser

    from mlkd.config.overrides import check_overrides, check_sweep
    from mlkd.config.paths import EXTRA_CONFIG_DIRS
    from mlkd.config.registry import register_schemas

    register_schemas()
    quiet_libraries()
    arguments = multirun_first([quote_if_needed(a) for a in arguments])
    folder: Path | None = None
    parsed = get_args_parser().parse_args(arguments)
    overrides = list(parsed.overrides)
    if parsed.config_dir and not Path(parsed.config_dir).is_dir():
        raise fail("E202", f"no such folder '{parsed.config_dir}' (cwd={Path.cwd()})", where="--config-dir")
    EXTRA_CONFIG_DIRS[:] = [Path(parsed.config_dir).resolve()] if parsed.config_dir else []
    only_shows = parsed.cfg or parsed.info or parsed.hydra_help or parsed.shell_completion
    if kind == "train" and not only_shows and (parsed.multirun or names_sweep(overrides)):
        start_sweep(arguments if parsed.multirun else ["-m", *arguments], overrides)
        return
    if parsed.multirun:
        check_sweep(kind, overrides)
    else:
        config = check_overrides(kind, overrides)
        if kind == "train" and not only_shows:
            folder = run_folder(config, overrides)
            # For a dry run Hydra would create the folder of a run.
            chosen = "." if config.dry_run else quote(str(folder))
            arguments += [] if has_own_folder(overrides) else [f"hydra.run.dir={chosen}"]
    try:
        run_hydra(kind, arguments)
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # reserved for a run that was refused: still empty
                folder.parent.rmdir()  # unless other runs of this name stand there


def run_hydra(kind: str, arguments: Sequence[str]) -> None:
    """Hand over to Hydra; what a single job raises is raised here, without the line that Hydra would print of it."""
    from hydra import main as hydra_main
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mlkd.config.paths import CONFIG_DIR

    failed: list[Exception] = []

    @functools.wraps(JOBS[kind])
    def job(cfg: DictConfig) -> object:
        try:
            return JOBS[kind](cfg)
        except Exception as error:
            # Jobs of a multirun may be in other processes, where only Hydra brings their errors back.
            if HydraConfig.get().mode is not RunMode.RUN:
                raise
            failed.append(error)
            return None

    # Hydra then raises what a job raised instead of printing half of it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *arguments]
    hydra_main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=kind)(job)()
    if failed:
        raise failed[0]


def start_sweep(arguments: Sequence[str], overrides: Sequence[str]) -> None:
    """A sweep in its folder, which may be that of an earlier one; a dry run leaves none behind."""
    import tempfile

    from mlkd.sweeps.hpo import run_search
    from mlkd.sweeps.job import read_job
    from mlkd.sweeps.plan import plan_sweep
    from mlkd.sweeps.run import override_key, run_sweep

    sweep = plan_sweep(overrides)

    def launch(folder: Path) -> None:
        run_hydra("train", [*arguments, f"hydra.sweep.dir={quote(str(folder))}"])

    def launch_search(folder: Path) -> None:
        fixed = [text for text in arguments if override_key(text) not in sweep.space]
        # The option's intervals are no values: the job gets its own instead.
        fixed += [*sweep.constant, "hydra.sweeper.params=null"]

        def run_trial(number: int, params: dict[str, str]) -> float | None:
            chosen = [f"{key}={value}" for key, value in params.items()]
            place = [f"hydra.sweep.dir={quote(str(folder))}", f"hydra.sweep.subdir={number}"]
            run_hydra("train", [*fixed, *chosen, *place])
            value = read_job(folder / str(number)).get("objective")
            return None if value is None else float(value)

        run_search(sweep.space, sweep.search, folder, run_trial)

    if sweep.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            launch(Path(folder))
    else:
        run_sweep(sweep, launch_search if sweep.space else launch)


def run_folder(config: Any, overrides: Sequence[str]) -> Path | None:
    """Where a single run goes: the unfinished run of the same configuration, or a new folder; None for no such run."""
    from datetime import datetime

    from mlkd.config.fingerprint import config_fingerprint
    from mlkd.runtime.run_folder import find_unfinished, new_run_path

    if config.dry_run or has_own_folder(overrides):
        return None
    parent = Path(config.output_dir) / config.name
    path = find_unfinished(parent, config_fingerprint(config)) if config.resume else None
    if path is not None:
        print(f"continuing {path} (resume=false starts anew)", file=sys.stderr)
        return path
    return new_run_path(parent, datetime.now())


def train_job(cfg: DictConfig) -> float | None:
    """One job: a single run, or one of a sweep, whose score a sweeper may search by."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mlkd.config.composition import build_config
    from mlkd.config.train_schema import TrainConfig
    from mlkd.sweeps.job import run_job
    from mlkd.training.dry_run import dry_run
    from mlkd.training.run import InterruptedAfterwardsError, train

    hydra_config = HydraConfig.get()
    folder, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    if hydra_config.mode is RunMode.MULTIRUN and not cfg.dry_run:
        return run_job(lambda: build_config(cfg, TrainConfig), folder, overrides)
    config = build_config(cfg, TrainConfig)
    if config.dry_run:
        dry_run(config)
    else:
        # No failure: a scheduler that starts interrupted runs again would start a finished one anew.
        with contextlib.suppress(InterruptedAfterwardsError):
            train(config, folder, overrides)
    return None


def evaluate_job(cfg: DictConfig) -> None:
    """One evaluation."""
    from mlkd.config.composition import build_config
    from mlkd.config.evaluate_schema import EvaluateConfig
    from mlkd.evaluation.run import evaluate

    evaluate(build_config(cfg, EvaluateConfig))


def mine_job(cfg: DictConfig) -> None:
    """One mining."""
    from mlkd.config.composition import build_config
    from mlkd.config.mine_schema import MineConfig
    from mlkd.mining.run import mine, summary

    try:
        print(summary(mine(build_config(cfg, MineConfig))))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        raise


JOBS: dict[str, Callable[[DictConfig], object]] = {"train": train_job, "evaluate": evaluate_job, "mine": mine_job}


def quiet_libraries() -> None:
    """Keep loading bars and load reports of libraries out of the run's own log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
