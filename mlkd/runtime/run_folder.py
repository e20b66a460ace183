"""The folder of one run: the names of its files, its status, and finding the run that a command continues."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from mlkd.errors import fail
from mlkd.runtime.atomic_files import remove_stale, restore_folder, write_json, write_text
from mlkd.runtime.environment import describe_environment
from mlkd.runtime.lock import hold_lock, is_held, not_writable, read_lock

log = logging.getLogger(__name__)


class RunState(StrEnum):
    """What became of a run; a run that was killed still says `running`, and its lock tells that it is not."""

    running = "running"
    finished = "finished"
    interrupted = "interrupted"
    failed = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Content of status.json; `fingerprint` names the configuration, `error` the reason of a failure."""

    state: RunState
    step: int = 0
    max_steps: int | None = None
    error: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of the files of a run; nothing is created before `create`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.path / "overrides.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def train_log(self) -> Path:
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def eval(self) -> Path:
        return self.path / "eval"

    @property
    def results_json(self) -> Path:
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def create(self) -> None:
        """Make the folder and prove that it can be written.

        Raises:
            MlkdError: E510 where it cannot, so that a run fails before a model is opened.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise not_writable(self.path, error) from error

    def write_status(self, status: Status) -> None:
        write_json(self.status, asdict(status))

    def read_status(self) -> Status | None:
        """The last status written, or None where there is none or it cannot be read."""
        try:
            content = json.loads(self.status.read_text(encoding="utf-8"))
            return Status(**content | {"state": RunState(content["state"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s cannot be read and is ignored: %s", self.status, error)
            return None

    def write_environment(self, device: str) -> None:
        write_json(self.environment, describe_environment(device))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder alone; E511 naming process and host where another run holds it."""
        self.create()
        with hold_lock(self.lock_file):
            remove_stale(self.path, older_than_s=0)
            restore_folder(self.student)
            yield


def new_run_path(parent: Path, now: datetime) -> Path:
    """Create and return `parent/<time>`, with `-2`, `-3`, ... behind it where runs start in the same second.

    Creating the folder is what reserves the name among processes that ask at once.
    """
    name = f"{now:%Y-%m-%d_%H-%M-%S}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            path = parent / (name if attempt == 1 else f"{name}-{attempt}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        raise not_writable(parent, error) from error
    raise fail("E510", f"10,000 runs named '{name}' in '{parent}'", remedy="choose another output folder")


def find_unfinished(parent: Path, fingerprint: str, *, or_finished: bool = False) -> Path | None:
    """The run under `parent` that the same command continues.

    It is the one whose status.json was written last among those with this configuration `fingerprint` that are not
    finished (unless `or_finished`) and that no living process holds.
    """
    found: list[tuple[int, str, Path]] = []
    for status_file in parent.glob("*/status.json"):
        run = RunFolder(status_file.parent)
        status = run.read_status()
        if status is None or status.fingerprint != fingerprint:
            continue
        if status.state is RunState.finished and not or_finished:
            continue
        if is_held(run.lock_file):
            log.info("not continuing '%s': it is held by %s", run.path, (read_lock(run.lock_file) or "").strip())
            continue
        found.append((status_file.stat().st_mtime_ns, run.path.name, run.path))
    return max(found)[2] if found else None
