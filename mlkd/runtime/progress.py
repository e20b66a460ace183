"""Progress of a run: a bar on a terminal, else a line now and then; with losses, rates, memory and time left."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, SupportsFloat

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

log = logging.getLogger(__name__)

# Attribute of records that stand on the terminal already, as the bar.
SHOWN_BY_BAR = "shown_by_bar"
LINE_INTERVAL_S = 30.0
LINE_INTERVAL_MAX_S = 600.0
BAR_INTERVAL_S = 0.5
WINDOW_S = 30.0


class _Mark(NamedTuple):
    time_s: float
    step: int
    num_sentences: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, over the last 30 seconds; 0 before the first step is done."""

    steps: float = 0.0
    sentences: float = 0.0
    tokens: float = 0.0


class Progress:
    """Reports each step; used as a context manager around the loop.

    A line is due after the first step, after the last one, and when 30 s and 1 % of the run have passed since the
    line before, at the latest after 10 min.

    Args:
        total_steps: steps of the whole run.
        first_step: step of the checkpoint the run continues from.
        clock: seconds, never going backwards.
        console: where the bar goes; standard error by default. Without a terminal there is no bar.
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._total_steps = total_steps
        self._clock = clock
        self._paused_s = 0.0
        self._marks: deque[_Mark] = deque([_Mark(clock(), first_step, 0, 0)])
        self._line_at: tuple[float, int] | None = None
        self._bar_at = -float("inf")
        self._latest: Callable[[], str] | None = None
        console = console or Console(stderr=True)
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            # Lines for a file or a pipe on standard output must not turn up on standard error.
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())

    @property
    def rates(self) -> Rates:
        first, last = self._marks[0], self._marks[-1]
        seconds = last.time_s - first.time_s
        if seconds <= 0:
            return Rates()
        return Rates(
            (last.step - first.step) / seconds,
            (last.num_sentences - first.num_sentences) / seconds,
            (last.num_tokens - first.num_tokens) / seconds,
        )

    def update(
        self, step: int, losses: Mapping[str, SupportsFloat], lr: float, num_sentences: int, num_tokens: int
    ) -> None:
        """Count a finished step.

        Args:
            losses: the total and its terms; tensors are read only when they are shown, so a device is not waited for.
            num_sentences: in this step alone, as is `num_tokens`.
        """
        now, last = self._now(), self._marks[-1]
        self._marks.append(_Mark(now, step, last.num_sentences + num_sentences, last.num_tokens + num_tokens))
        while len(self._marks) > 2 and self._marks[1].time_s <= now - WINDOW_S:
            self._marks.popleft()
        self._latest = lambda: self._describe(step, losses, lr)
        if now - self._bar_at >= BAR_INTERVAL_S:
            self._bar_at = now
            self._draw_bar()
        if self._is_line_due(now, step):
            self._write_line()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside, such as an evaluation, out of the rates and the time left."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - start

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        self._marks = deque([self._marks[-1]._replace(time_s=self._now())])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an error the losses may be tensors of a device that no longer answers.
            if kind is None and self._latest is not None:
                self._draw_bar()
                if self._line_at is None or self._line_at[1] != self._marks[-1].step:
                    self._write_line()
        finally:
            if self._live is not None:
                self._live.stop()

    def _now(self) -> float:
        return self._clock() - self._paused_s

    def _is_line_due(self, now: float, step: int) -> bool:
        if self._line_at is None:
            return True
        seconds, steps = now - self._line_at[0], step - self._line_at[1]
        return seconds >= LINE_INTERVAL_MAX_S or (seconds >= LINE_INTERVAL_S and steps >= self._total_steps / 100)

    def _write_line(self) -> None:
        assert self._latest is not None
        self._line_at = (self._now(), self._marks[-1].step)
        log.info("%s", self._latest(), extra={SHOWN_BY_BAR: self._live is not None})

    def _draw_bar(self) -> None:
        assert self._latest is not None
        if self._live is not None:
            bar = ProgressBar(total=self._total_steps, completed=self._marks[-1].step)
            # The text comes first: a bar does not end its line.
            self._live.update(Group(Text(self._latest()), bar), refresh=True)

    def _describe(self, step: int, losses: Mapping[str, SupportsFloat], lr: float) -> str:
        rates = self.rates
        share = step / self._total_steps if self._total_steps else 1.0
        left = f"{timedelta(seconds=round((self._total_steps - step) / rates.steps))}" if rates.steps else "unknown"
        parts = [
            f"step {step:,}/{self._total_steps:,} ({share:.1%})",
            ", ".join(f"{name} {float(value):.4g}" for name, value in losses.items()),
            f"lr {lr:.3g}",
            f"{rates.sentences:,.0f} sentences/s",
            f"{rates.tokens:,.0f} tokens/s",
            f"{memory_bytes() / 2**30:.2f} GiB",
            f"{left} left",
        ]
        return " | ".join(part for part in parts if part)


def memory_bytes() -> int:
    """Peak of the memory allocated on the CUDA device where one is in use, else memory of this process now."""
    peak = torch.cuda.max_memory_allocated()  # 0 before a CUDA device is used
    if peak:
        return peak
    try:
        num_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return num_pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        # Without /proc only the peak is known; it is in bytes on macOS and in KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
