"""Launcher of a run's other processes: started, told what to do, heard, and ended.

They are children of the leading process, each at the other end of a pipe. What takes long in the leader, such as an
evaluation, they spend waiting at the pipe, where no timeout bites; when the leader dies, the pipe ends and so do they.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from mlkd.distributed.process_group import TIMEOUT_S, LostProcessError
from mlkd.errors import MlkdError, Problem, fail
from mlkd.runtime.signals import SIGNALS

START_METHOD = "spawn"  # a fork would inherit CUDA and threads in an unknown state
POLL_S = 0.1
REASON_S = 5.0  # how long a reason may take to arrive after the failure that it explains
END_S = 15.0
Message = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended a process.

    Args:
        what: type and text of the error.
        trace: its traceback.
        problems: of an MlkdError.
        is_secondary: it only lost the others.
    """

    what: str
    trace: str
    problems: tuple[Problem, ...] = ()
    is_secondary: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        problems = tuple(error.problems) if isinstance(error, MlkdError) else ()
        trace = "".join(traceback.format_exception(error))
        return cls(f"{type(error).__name__}: {error}", trace, problems, isinstance(error, LostProcessError | EOFError))


@dataclass(slots=True)
class Worker:
    """One of the other processes, this end of its pipe, and the reason it gave where it failed."""

    rank: int
    process: BaseProcess
    pipe: Connection
    failure: Failure | None = None

    def read_failure(self) -> None:
        """Take a reason out of the pipe where one has arrived; other messages before it are of no use any more."""
        with contextlib.suppress(EOFError, OSError):
            while self.failure is None and self.pipe.poll():
                message = self.pipe.recv()
                self.failure = message if isinstance(message, Failure) else None


@dataclass(slots=True)
class Launcher:
    """Starts `size` - 1 processes that each run `work(pipe, rank, size, *arguments)`; ends them when it is left.

    Args:
        size: processes of the run, the leading one included; 1 starts none.
        work: of each; importable by its name.
        arguments: that pickle can take to another process.
        tell_trace: is given the traceback of a process that failed by no MlkdError.
    """

    size: int
    work: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    log_traceback: Callable[[str], None] = lambda trace: None
    workers: list[Worker] = field(default_factory=list)
    is_ending: bool = False
    watcher: threading.Thread | None = None

    def __enter__(self) -> Launcher:
        context: Any = multiprocessing.get_context(START_METHOD)
        try:
            with blocked_signals():
                for rank in range(1, self.size):
                    own, theirs = context.Pipe()
                    arguments = (theirs, rank, self.size, *self.arguments)
                    process = context.Process(target=self.work, args=arguments, name=f"mlkd-{rank}")
                    process.start()
                    theirs.close()
                    self.workers.append(Worker(rank, process, own))
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(at_once=error is not None)

    def send(self, *message: Any) -> None:
        """Send a message to every worker."""
        for worker in self.workers:
            try:
                worker.pipe.send(message)
            except OSError as error:
                raise self.explain_failure(error) from error

    def shut_down(self) -> None:
        """Tell all workers to end; from here on it is no failure that they do."""
        self.is_ending = True
        self.send("stop")

    def monitor(self, on_loss: Callable[[], None]) -> None:
        """Have a thread call `on_loss` when a worker ends before its time; this process may be waiting for it."""

        def work(sentinels: list[int]) -> None:
            wait(sentinels)
            if not self.is_ending:
                on_loss()

        sentinels = [worker.process.sentinel for worker in self.workers]
        self.watcher = threading.Thread(target=work, args=(sentinels,), name="mlkd-watcher", daemon=True)
        self.watcher.start()

    def gather_answers(self, *message: Any) -> list[Message]:
        """Send a message to every worker and wait for their answers, in the order of their ranks."""
        self.send(*message)
        return self.receive()

    def receive(self, stop: Callable[[], None] = lambda: None) -> list[Message]:
        """One message of each worker, in the order of their ranks.

        Args:
            stop: called again and again while they take their time; may raise.
        """
        return [self._receive(worker, stop) for worker in self.workers]

    def _receive(self, worker: Worker, stop: Callable[[], None]) -> Message:
        while not worker.pipe.poll():
            stop()
            watched = [f.process.sentinel for f in self.workers if f.process.is_alive()]
            if len(watched) < len(self.workers):
                raise self.explain_failure(LostProcessError("a process ended"))
            wait([worker.pipe, *watched], timeout=POLL_S)
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError) as error:
            raise self.explain_failure(error) from error
        if isinstance(message, Failure):
            worker.failure = message
            raise self.explain_failure(LostProcessError("a process failed"))
        assert isinstance(message, tuple)
        return message

    def explain_failure(self, error: Exception) -> Exception:
        """The reason why an exchange with the workers failed: the first cause among them, as an error to raise."""
        deadline = time.monotonic() + REASON_S
        while time.monotonic() < deadline:
            for worker in self.workers:
                worker.read_failure()
            if self._first_causes() or not any(f.process.is_alive() for f in self.workers):
                break
            time.sleep(POLL_S)
        for worker in self.workers:
            worker.read_failure()
        if causes := self._first_causes():
            return self._as_error(causes[0])
        if "timed out" in str(error).lower():
            waiting = ", ".join(str(f.process.pid) for f in self.workers)
            return fail(
                "E516",
                f"the {self.size} processes of this run waited {TIMEOUT_S:,.0f} s for one another",
                remedy=f"see what processes {waiting} hang in (py-spy dump --pid ...), or set "
                "hardware.num_processes=1; the same command continues from the last checkpoint",
            )
        remedy = "the same command continues from the last checkpoint; hardware.num_processes=1 needs no exchange"
        return fail("E516", f"the {self.size} processes of this run lost each other: {error}", remedy=remedy)

    def _first_causes(self) -> list[Worker]:
        """Those that failed of themselves; those that were killed, which left no reason."""
        failed = [f for f in self.workers if f.failure is not None and not f.failure.is_secondary]
        return failed or [f for f in self.workers if f.failure is None and (f.process.exitcode or 0) < 0]

    def _as_error(self, worker: Worker) -> Exception:
        who = f"process {worker.rank + 1} of {self.size}"
        failure = worker.failure
        if failure is not None and failure.problems:
            return MlkdError(failure.problems)
        if failure is not None:
            self.log_traceback(f"{who}:\n{failure.trace}")
            remedy = "train.log has its traceback; the same command continues from the last checkpoint"
            return fail("E102", f"{who} failed: {failure.what}", remedy=remedy)
        name = signal.Signals(-(worker.process.exitcode or 0)).name
        remedy = "the system kills what takes its last memory: lower hardware.num_processes or hardware.max_tokens; "
        remedy += "the same command continues from the last checkpoint"
        return fail("E515", f"{who} was killed ({name})", remedy=remedy)

    def _end(self, *, at_once: bool) -> None:
        """Wait for the workers that were told to stop, and kill those that do not, or all of them."""
        self.is_ending = True
        deadline = time.monotonic() + (0.0 if at_once else END_S)
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        for worker in self.workers:
            # Not SIGTERM, which they ignore; they write no files.
            worker.process.kill()
            worker.process.join()
        if self.watcher is not None:
            self.watcher.join()
        for worker in self.workers:
            worker.process.close()
            worker.pipe.close()
        self.workers = []


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Let processes that start now never see the signals that end a run; they wait for this process meanwhile."""
    resource_tracker.ensure_running()  # the first process to start would start it, which unblocks signals (3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
