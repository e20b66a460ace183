"""Signals that end a run: they set a flag, and the loop stops where a step is complete."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from mlkd.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_TERMINATED

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR2") if hasattr(signal, name))
NOTE = b"\nmlkd: finishing the step, then saving. Ctrl-C again stops at once.\n"


class Interrupts:
    """Flags SIGTERM, SIGINT and SIGUSR2 inside a `with` block; a second SIGINT raises KeyboardInterrupt at once.

    Outside the main thread no handler can be set, so nothing is flagged there. A signal that was ignored stays
    ignored (`nohup`).

    Attributes:
        signum: number of the first signal, 0 before. Of several processes the first one alone looks out for them.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._is_told = False

    @property
    def requested(self) -> str | None:
        """Name of the signal that asked for the end, such as `SIGTERM`, or None."""
        return signal.Signals(self.signum).name if self.signum else None

    @property
    def exit_code(self) -> int:
        """0 without a signal; 75 where a scheduler will start the run again, else 130 (SIGINT) or 143 (SIGTERM)."""
        if not self.signum:
            return 0
        if self.signum == signal.SIGINT:
            return EXIT_INTERRUPTED
        if self.signum == signal.SIGTERM and "SLURM_JOB_ID" not in os.environ:
            return EXIT_TERMINATED
        return EXIT_PREEMPTED

    def call_previous(self) -> None:
        """Hand the signal on to the handler that was there before, such as submitit's, which requeues the job.

        To be called once the state is saved: that handler may leave the process. Python's own handler of SIGINT is
        not called; `exit_code` says what it would.
        """
        previous = self._previous.get(self.signum)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(self.signum, None)

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                previous = signal.getsignal(signum)
                # None: set by C code, which Python could not put back.
                if previous is not None and previous is not signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._flag)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)

    def _flag(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        if signum != signal.SIGINT:
            return
        if not self._is_told:
            self._is_told = True
            # Not through logging or print: the signal may have arrived in the middle of theirs.
            with contextlib.suppress(OSError):
                os.write(2, NOTE)
        else:
            raise KeyboardInterrupt
