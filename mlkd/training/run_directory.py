"""The run directory: where a single run goes, which is decided here alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mlkd.config.fingerprint import config_fingerprint
from mlkd.config.train_schema import TrainConfig
from mlkd.runtime.run_folder import find_unfinished, new_run_path


def choose_run_directory(config: TrainConfig) -> Path:
    """The unfinished run of the same configuration under `<output_dir>/<name>`, or a new folder there."""
    parent = Path(config.output_dir) / config.name
    path = find_unfinished(parent, config_fingerprint(config)) if config.resume else None
    if path is None:
        return new_run_path(parent, datetime.now())
    print(f"continuing {path} (resume=false starts anew)", file=sys.stderr)
    return path


@contextlib.contextmanager
def reserved_run_directory(config: TrainConfig, folder: str | Path = "") -> Iterator[Path]:
    """`folder`, or the one that `choose_run_directory` reserves; given back where a refused run left it empty."""
    if folder:
        yield Path(folder)
        return
    path = choose_run_directory(config)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()  # still empty
            path.parent.rmdir()  # unless other runs of this name stand there
