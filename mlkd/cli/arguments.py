"""Command-line arguments: the flags and overrides of a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlkd.config.alternatives import without_presets
from mlkd.config.quoting import as_hydra_reads
from mlkd.errors import fail

# Flags of Hydra's own that only show something; it is given the whole command then.
SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command taken apart.

    Args:
        overrides: `key=value` and `group=option`, quoted where Hydra needs it.
        config_dir: folder of the user's own options; empty for none.
        multirun: a sweep is asked for.
        only_shows: nothing is run.
        given: the whole command as Hydra reads it.
    """

    overrides: list[str]
    config_dir: str = ""
    multirun: bool = False
    only_shows: bool = False
    given: list[str] = field(default_factory=list)


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Take a command apart.

    Raises:
        MlkdError: E200 for a flag that does not exist.
    """
    given = as_hydra_reads(arguments)
    only_shows = any(a.partition("=")[0] in SHOWS for a in given)
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--config-dir", "-cd", default="")
    if only_shows:
        for names, options in (
            (("--cfg", "-c"), {}),
            (("--info", "-i"), {"nargs": "?"}),
            (("--package", "-p"), {}),
            (("--resolve",), {"action": "store_true"}),
            (("--hydra-help",), {"action": "store_true"}),
            (("--shell-completion", "-sc"), {"action": "store_true"}),
        ):
            parser.add_argument(*names, **options)  # type: ignore[arg-type]
    parsed = parser.parse_intermixed_args(given)
    flags = list(given)
    for text in parsed.overrides:
        flags.remove(text)
    overrides = without_presets(parsed.overrides)
    # Hydra's parser reads overrides only in one piece, and people type flags between them.
    in_one_piece = [*overrides, *flags] if only_shows else [*flags, *overrides]  # --info takes what follows it
    return Arguments(overrides, parsed.config_dir, parsed.multirun, only_shows, in_one_piece)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # argparse would end the process
        raise fail("E200", message, remedy="--help prints what there is")


def names_sweep(overrides: Sequence[str]) -> bool:
    """Whether an option of the group `sweep` is chosen, which makes a command a sweep without -m."""
    return any(o.lstrip("+").startswith("sweep=") for o in overrides)


def run_dir_override(overrides: Sequence[str]) -> str:
    """The folder that `hydra.run.dir=` names, for users who know Hydra; empty where there is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [o for o in overrides if o.lstrip("+").startswith("hydra.run.dir=")]
    return str(OverridesParser.create().parse_override(given[-1]).value()) if given else ""
