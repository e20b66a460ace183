"""The console scripts: help and version without heavy imports, all configuration errors at once, exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlkd import __version__
from mlkd.errors import EXIT_INTERRUPTED, MlkdError, fail

if TYPE_CHECKING:
    from omegaconf import DictConfig

LIBRARIES = ("torch", "transformers", "hydra-core", "datasets", "faiss-cpu", "faiss-gpu", "sentence-transformers")
GROUPS = ("experiment", "sweep", "teacher", "student", "loss", "data", "optim", "hardware", "task")
GROUPS_OF = {"train": GROUPS, "evaluate": ("task", "hardware"), "mine": ("hardware",)}
INTRODUCTION = {
    "train": """mlkd-train [GROUP=OPTION ...] [KEY=VALUE ...] [-m]

Distil a sentence encoder into a student. Without arguments: the embedded default, offline, on the CPU.

  mlkd-train +experiment=xlmr_en_de            a whole experiment
  mlkd-train +experiment=xlmr_en_de data=tsv data.path='my/en-{language}.tsv' 'data.languages=[de]'
  mlkd-train dry_run=true                      check everything, take one step, print sizes and time
  mlkd-train -m loss.beta=1,10,100 seed=1,2    a sweep, which ends in a table; again, it does what is not finished
  mlkd-train +experiment=xlmr_en_de +sweep=data_size         a ready sweep of an experiment
  mlkd-train --cfg job                         print the composed configuration
""",
    "evaluate": """mlkd-eval checkpoint=WHAT [task=[NAME,...]] [KEY=VALUE ...]

Score encoders: run folders, sentence-transformers or transformers folders, hub ids, vectors computed elsewhere.

  mlkd-eval checkpoint=outputs/demo/<time>
  mlkd-eval checkpoint=sentence-transformers/LaBSE task=[sts17,tatoeba_hub]
  mlkd-eval checkpoint=outputs/demo/<time> task=mse teacher_model=sentence-transformers/all-MiniLM-L6-v2
  mlkd-eval 'checkpoint=[outputs/a,outputs/b]' task=bucc_file 'task.bucc_file.path=dir/{pair}.{side}'
  mlkd-eval 'checkpoint=[outputs/a,{path: xlm-roberta-base, layer: 8, name: XLM-R}]'   a baseline's layer; also prompt
  mlkd-eval 'compare=[outputs/a,outputs/b]'               earlier results side by side, with paired tests
  mlkd-eval export_texts=vectors task=[tatoeba,sts]       then checkpoint=vectors, a row of its .npy for each line
""",
    "mine": """mlkd-mine encoder=WHAT source=FILE target=FILE [output=FILE.tsv.gz] [KEY=VALUE ...]

Find pairs of translations in two files of sentences, one a line, plain or .gz, .xz, .zst, .bz2. Writes
score TAB source TAB target, best first. Interrupted, the same command goes on.

  mlkd-mine encoder=outputs/demo/<time> source=news.de.gz target=news.en.gz
  mlkd-mine encoder=sentence-transformers/LaBSE source=a.txt target=b.txt output=ab.tsv threshold=1.05
  mlkd-mine encoder=... source=... target=... margin=distance retrieval=intersection num_neighbours=8
  mlkd-mine encoder=... source=... target=... num_shards=8 shard=$SLURM_ARRAY_TASK_ID

  mlkd-mine encoder=x source=a.txt target=b.txt --cfg job      print all keys and their defaults
""",
}


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


def rewrite_experiment(arguments: Sequence[str]) -> list[str]:
    """`experiment=x` is what people type; Hydra wants `+experiment=x` as it is not in the defaults list.

    The same holds for `sweep=x`.
    """
    return [f"+{a}" if a.startswith(("experiment=", "sweep=")) else a for a in arguments]


def multirun_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's parser reads overrides only in one piece, and -m is what people type between them.

    >>> multirun_first(["a=1", "-m", "b=2"])
    ['-m', 'a=1', 'b=2']
    """
    flags = [a for a in arguments if a in ("-m", "--multirun")]
    return [*flags[:1], *(a for a in arguments if a not in flags)]


def quote_if_needed(argument: str) -> str:
    """Quote a value that Hydra's grammar cannot read bare, such as a path with braces, `=` or letters beyond ASCII."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals or value[:1] in ("[", "{", "'", '"'):
        return argument
    parser = OverridesParser.create()
    for candidate in (argument, f"{key}={quote(value)}"):
        try:
            parser.parse_override(candidate)
        except HydraException:
            continue
        return candidate
    return argument


def quote(value: str) -> str:
    r"""`value` as Hydra reads it back: inside quotes, a backslash escapes only where it stands before a quote.

    >>> print(quote(r"it's a\b"))
    'it\'s a\b'
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def start(kind: str, arguments: list[str]) -> None:
    """Check the configuration as a whole, then hand over to Hydra.

    Raises:
        MlkdError: E2xx with all problems, or whatever the command itself raises.
    """
    from hydra._internal.utils import get_args_parser

    from mlkd.config import register_schemas
    from mlkd.diagnosis import check_overrides, check_sweep
    from mlkd.paths import EXTRA_CONFIG_DIRS

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

    from mlkd.paths import CONFIG_DIR

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


def names_sweep(overrides: Sequence[str]) -> bool:
    """Whether an option of the group `sweep` is chosen, which makes a command a sweep without -m."""
    return any(o.lstrip("+").startswith("sweep=") for o in overrides)


def start_sweep(arguments: Sequence[str], overrides: Sequence[str]) -> None:
    """A sweep in its folder, which may be that of an earlier one; a dry run leaves none behind."""
    import tempfile

    from mlkd.search import run_search
    from mlkd.sweep import override_key, read_job, run_sweep
    from mlkd.sweep_plan import plan_sweep

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


def has_own_folder(overrides: Sequence[str]) -> bool:
    """Whether the user said where the run goes."""
    return any(o.lstrip("+").startswith("hydra.run.dir=") for o in overrides)


def run_folder(config: Any, overrides: Sequence[str]) -> Path | None:
    """Where a single run goes: the unfinished run of the same configuration, or a new folder; None for no such run."""
    from datetime import datetime

    from mlkd.runtime.run_folder import find_unfinished, new_run_path
    from mlkd.train import config_fingerprint

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

    from mlkd.config import TrainConfig, build_config
    from mlkd.dry_run import dry_run
    from mlkd.sweep import run_job
    from mlkd.train import InterruptedAfterwardsError, train

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
    from mlkd.config import build_config
    from mlkd.evaluate import evaluate
    from mlkd.evaluate_config import EvaluateConfig

    evaluate(build_config(cfg, EvaluateConfig))


def mine_job(cfg: DictConfig) -> None:
    """One mining."""
    from mlkd.bitext.settings import MineConfig
    from mlkd.config import build_config
    from mlkd.mine import mine, summary

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


def version_text() -> str:
    """mlkd's version and those of the libraries that decide results."""
    lines = [f"mlkd {__version__}", f"python {sys.version.split()[0]}"]
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)


def help_text(kind: str) -> str:
    """Usage, the options of each group, and each experiment with what it shows."""
    from mlkd.paths import CONFIG_DIR

    lines = [INTRODUCTION[kind]]
    for group in GROUPS_OF[kind]:
        options = sorted(p for p in (CONFIG_DIR / group).glob("*.yaml"))
        if group in ("experiment", "sweep"):
            lines.append(f"{group}s:")
            lines += [f"  {p.stem:<24} {first_comment(p)}" for p in options]
        else:
            lines.append(f"{group}: {', '.join(p.stem for p in options)}")
    lines.append("\nHydra's own flags (-m, --cfg job, --info) work; --version prints versions.")
    return "\n".join(lines)


def first_comment(path: Path) -> str:
    """What an option's YAML file says of itself in its first comment, package lines left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.removeprefix("#").strip()
    return ""
