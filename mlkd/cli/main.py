"""The console scripts: one command from its arguments to its exit code."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlkd.cli.arguments import Arguments, names_sweep, parse_arguments, run_dir_override
from mlkd.cli.help import help_text, version_text
from mlkd.config.quoting import quote
from mlkd.errors import EXIT_INTERRUPTED, MlkdError, fail

if TYPE_CHECKING:
    from omegaconf import DictConfig


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
    if "--version" in arguments:
        print(version_text())
        return 0
    try:
        if {"--help", "-h"} & set(arguments):
            print_help(kind, topics(arguments))
            return 0
        start(kind, parse_arguments(arguments))
    except MlkdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        return int(getattr(interrupt, "exit_code", EXIT_INTERRUPTED))
    return 0


def topics(arguments: Sequence[str]) -> list[str]:
    """What a command that asks for help names beside its flags."""
    values = [after for flag, after in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    return [text for text in arguments if not text.startswith("-") and text not in values]


def print_help(kind: str, names: Sequence[str]) -> None:
    """Help of the command, or of each group, option and key that is named."""
    if not names:
        print(help_text(kind))
        return
    from mlkd.cli.topics import topic_help

    print("\n\n".join(topic_help(kind, name) for name in names))


def start(kind: str, arguments: Arguments) -> None:
    """Check the configuration as a whole and do what it asks for; Hydra gets what is shown, and jobs of a sweep.

    Raises:
        MlkdError: E2xx with all problems, or whatever the command itself raises.
    """
    from mlkd.config.overrides import check_overrides, check_sweep
    from mlkd.config.paths import EXTRA_CONFIG_DIRS
    from mlkd.config.registry import register_schemas

    register_schemas()
    quiet_libraries()
    if arguments.config_dir and not Path(arguments.config_dir).is_dir():
        raise fail("E202", f"no such folder '{arguments.config_dir}' (cwd={Path.cwd()})", where="--config-dir")
    EXTRA_CONFIG_DIRS[:] = [Path(arguments.config_dir).resolve()] if arguments.config_dir else []
    is_sweep = arguments.multirun or (kind == "train" and names_sweep(arguments.overrides))
    if kind == "train" and is_sweep and not arguments.only_shows:
        start_sweep(arguments.given if arguments.multirun else ["-m", *arguments.given], arguments.overrides)
    elif is_sweep:
        check_sweep(kind, arguments.overrides)
        run_hydra(kind, arguments.given)
    else:
        config = check_overrides(kind, arguments.overrides)
        if arguments.only_shows:
            run_hydra(kind, arguments.given)
        else:
            refuse_unused(arguments.overrides)
            SINGLE_RUNS[kind](config, arguments.overrides)


def refuse_unused(overrides: Sequence[str]) -> None:
    """E209 for settings of Hydra that a single run has no use for."""
    keys = [text.partition("=")[0].lstrip("+~") for text in overrides]
    unused = [k for k in keys if k.startswith(("hydra.", "hydra/")) and k != "hydra.run.dir"]
    if unused:
        what = "a single run does not go through Hydra's job; only hydra.run.dir is read"
        raise fail("E209", what, where=unused[0], remedy="leave it out, or start a sweep with -m")


def train_once(config: Any, overrides: Sequence[str]) -> None:
    """A single training run, or a dry one."""
    from mlkd.training.dry_run import dry_run
    from mlkd.training.run import InterruptedAfterwardsError, train
    from mlkd.training.run_directory import reserved_run_directory

    if config.dry_run:
        dry_run(config)
        return
    # An interruption of the report alone is no failure: a scheduler that starts interrupted runs again would start a
    # finished one anew.
    with (
        reserved_run_directory(config, run_dir_override(overrides)) as folder,
        contextlib.suppress(InterruptedAfterwardsError),
    ):
        train(config, folder, [o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))])


def evaluate_once(config: Any, overrides: Sequence[str]) -> None:
    """One evaluation."""
    from mlkd.evaluation.run import evaluate

    evaluate(config)


def mine_once(config: Any, overrides: Sequence[str]) -> None:
    """One mining."""
    from mlkd.mining.run import mine, summary

    try:
        print(summary(mine(config)))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        raise


SINGLE_RUNS: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "train": train_once,
    "evaluate": evaluate_once,
    "mine": mine_once,
}


def sweep_job(kind: str, cfg: DictConfig) -> float | None:
    """One job of a sweep, in whichever process Hydra's launcher runs it; a score is what a sweeper searches by."""
    from hydra.core.hydra_config import HydraConfig

    from mlkd.config.composition import build_config
    from mlkd.config.overrides import SCHEMA_OF
    from mlkd.config.train_schema import TrainConfig
    from mlkd.sweeps.job import run_job

    if kind != "train" or cfg.dry_run:
        SINGLE_RUNS[kind](build_config(cfg, SCHEMA_OF[kind]), ())
        return None
    hydra_config = HydraConfig.get()
    folder, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    return run_job(lambda: build_config(cfg, TrainConfig), folder, overrides)


def train_job(cfg: DictConfig) -> float | None:
    """A job of mlkd-train, importable by its name for launchers that start processes."""
    return sweep_job("train", cfg)


def evaluate_job(cfg: DictConfig) -> float | None:
    """A job of mlkd-eval."""
    return sweep_job("evaluate", cfg)


def mine_job(cfg: DictConfig) -> float | None:
    """A job of mlkd-mine."""
    return sweep_job("mine", cfg)


JOBS: dict[str, Callable[[DictConfig], float | None]] = {
    "train": train_job,
    "evaluate": evaluate_job,
    "mine": mine_job,
}


def run_hydra(kind: str, arguments: Sequence[str]) -> None:
    """Hand over to Hydra, whose only public way in reads sys.argv: sweeps, --cfg, --info, completion."""
    from hydra import main as hydra_main

    from mlkd.config.paths import CONFIG_DIR

    with command_of_hydra(arguments):
        hydra_main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=kind)(JOBS[kind])()


@contextlib.contextmanager
def command_of_hydra(arguments: Sequence[str]) -> Iterator[None]:
    """sys.argv as Hydra is to read it, and errors of jobs raised whole instead of printed by half."""
    before, errors_before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [before[0], *arguments], "1"
    try:
        yield
    finally:
        sys.argv = before
        if errors_before is None:
            del os.environ["HYDRA_FULL_ERROR"]


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

        run_search(sweep.space, sweep.hpo, folder, run_trial)

    if sweep.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            launch(Path(folder))
    else:
        run_sweep(sweep, launch_search if sweep.space else launch)


def quiet_libraries() -> None:
    """Keep loading bars and load reports of libraries out of the run's own log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
