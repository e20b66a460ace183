"""Run log: metrics.jsonl, timing.jsonl, train.log, and progress on the terminal.

metrics.jsonl holds only what a resumed run reproduces; what depends on the clock goes to timing.jsonl and train.log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from mlkd.runtime.atomic_files import write_text
from mlkd.runtime.progress import SHOWN_BY_BAR, Progress
from mlkd.runtime.run_folder import RunFolder

log = logging.getLogger(__name__)
package_log = logging.getLogger("mlkd")


class RunLog:
    """Writes the logs of one run; used as a context manager, during which the logger `mlkd` writes to train.log.

    A log that cannot be written warns once and never stops training.

    Args:
        folder: the run folder; must exist.
        total_steps: steps of the whole run.
        resume_step: step of the checkpoint training continues from: lines of later steps, which will be written
            again, and a half-written last line are removed. None starts both files empty.
    """

    def __init__(self, folder: Path, total_steps: int, resume_step: int | None = None) -> None:
        run = RunFolder(folder)
        self.total_steps = total_steps
        self.first_step = resume_step or 0
        self._metrics = LineFile(run.metrics)
        self._timing = LineFile(run.timing)
        self._handlers: list[logging.Handler] = []
        self._train_log = run.train_log
        self._keep_until = -1 if resume_step is None else resume_step
        self._previous = (logging.NOTSET, True)

    def log_step(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Append `{"step": ..., "kind": ..., **values}` to metrics.jsonl; values that are not finite become null.

        All lines of a step belong before its checkpoint is saved: a resumed run does not repeat them.
        """
        self._metrics.append({"step": step, "kind": kind, **_finite(values)})

    def log_timing(self, step: int, values: Mapping[str, float]) -> None:
        """Append `{"step": ..., **values}` to timing.jsonl: rates, memory, durations."""
        self._timing.append({"step": step, **_finite(values)})

    def progress(self) -> Progress:
        return Progress(self.total_steps, self.first_step)

    def __enter__(self) -> RunLog:
        self._previous = (package_log.level, package_log.propagate)
        package_log.setLevel(logging.INFO)
        package_log.propagate = False  # handlers of Hydra or a notebook would print every line a second time
        self._add(_StderrHandler())
        try:
            self._add(_TrainLogHandler(self._train_log))
        except OSError as error:
            log.warning("train.log is not written: %s", error)
        for file in (self._metrics, self._timing):
            file.keep_until(self._keep_until)
        return self

    def _add(self, handler: logging.Handler) -> None:
        self._handlers.append(handler)
        package_log.addHandler(handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._metrics, self._timing):
            if file.num_lost:
                log.warning("%d lines of '%s' were lost", file.num_lost, file.path)
        for handler in self._handlers:
            package_log.removeHandler(handler)
            handler.close()
        self._handlers = []
        package_log.setLevel(self._previous[0])
        package_log.propagate = self._previous[1]


class LineFile:
    """A file of JSON lines that each reach the system before `append` returns, so that a killed process loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_lost = 0

    def keep_until(self, last_step: int) -> None:
        """Drop lines of later steps and what is no complete JSON object."""
        try:
            kept = [line for line in _lines(self.path) if _step_of(line) <= last_step]
            if self.path.is_file():
                write_text(self.path, "".join(line + "\n" for line in kept))
        except OSError as error:
            log.warning("'%s' was not cut back to step %d: %s", self.path, last_step, error)

    def append(self, content: Mapping[str, object]) -> None:
        line = (json.dumps(content, ensure_ascii=False) + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, 2)
                written = 0
                try:
                    written = file.write(line)
                finally:
                    if written != len(line):  # the disk was full in the middle of the line
                        with contextlib.suppress(OSError):
                            file.truncate(end)
                if written != len(line):
                    raise OSError(f"{written} of {len(line)} bytes written")
        except OSError as error:
            self.num_lost += 1
            if self.num_lost == 1:
                log.warning("'%s' cannot be written, training goes on without it: %s", self.path, error)


def _lines(path: Path) -> list[str]:
    # Not `splitlines`: a value may contain other line separators.
    return path.read_bytes().decode("utf-8", errors="replace").split("\n") if path.is_file() else []


def _step_of(line: str) -> float:
    """Step of a line; infinite where the line is no complete record."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN; a reader that is not Python would refuse the line.
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class _Formatter(logging.Formatter):
    """Messages as they are, with their level in front from warning upwards."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment: a progress bar replaces it to print lines above itself."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, SHOWN_BY_BAR, False):
            self.stream = sys.stderr
            super().emit(record)


class _TrainLogHandler(logging.FileHandler):
    """Appends to train.log with UTC time and level; says once that the disk is full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8")
        formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        self._has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (name given by logging)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            print(f"warning: '{self.baseFilename}' cannot be written, training goes on: {error}", file=sys.stderr)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is still buffered does not fit either
            super().close()
