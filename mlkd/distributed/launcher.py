"""The other processes of a run, as the one that leads them sees them: started, told what to do, heard, and ended.

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

from mlkd.distributed.process_group import TIMEOUT_S, LostError
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
        return cls(f"{type(error).__name__}: {error}", trace, problems, isinstance(error, LostError | EOFError))


@dataclass(slots=True)
class Follower:
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
class Crew:
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
    tell_trace: Callable[[str], None] = lambda trace: None
    followers: list[Follower] = field(default_factory=list)
    is_ending: bool = False
    watcher: threading.Thread | None = None

    def __enter__(self) -> Crew:
        context: Any = multiprocessing.get_context(START_METHOD)
        try:
            with blocked_signals():
                for rank in range(1, self.size):
                    own, theirs = context.Pipe()
                    arguments = (theirs, rank, self.size, *self.arguments)
                    process = context.Process(target=self.work, args=arguments, name=f"mlkd-{rank}")
                    process.start()
                    theirs.close()
                    self.followers.append(Follower(rank, process, own))
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(at_once=error is not None)

    def tell(self, *message: Any) -> None:
        """Send a message to every follower."""
        for follower in self.followers:
            try:
                follower.pipe.send(message)
            except OSError as error:
                raise self.explain(error) from error

    def dismiss(self) -> None:
        """Tell all followers to end; from here on it is no failure that they do."""
        self.is_ending = True
        self.tell("stop")

    def watch(self, on_loss: Callable[[], None]) -> None:
        """Have a thread call `on_loss` when a follower ends before its time; this process may be waiting for it."""

        def work(sentinels: list[int]) -> None:
            wait(sentinels)
            if not self.is_ending:
                on_loss()

        sentinels = [follower.process.sentinel for follower in self.followers]
        self.watcher = threading.Thread(target=work, args=(sentinels,), name="mlkd-watcher", daemon=True)
        self.watcher.start()

    def ask(self, *message: Any) -> list[Message]:
        """Send a message to every follower and wait for their answers, in the order of their ranks."""
        self.tell(*message)
        return self.hear()

    def hear(self, stop: Callable[[], None] = lambda: None) -> list[Message]:
        """One message of each follower, in the order of their ranks.

        Args:
            stop: called again and again while they take their time; may raise.
        """
        return [self._hear(follower, stop) for follower in self.followers]

    def _hear(self, follower: Follower, stop: Callable[[], None]) -> Message:
        while not follower.pipe.poll():
            stop()
            watched = [f.process.sentinel for f in self.followers if f.process.is_alive()]
            if len(watched) < len(self.followers):
                raise self.explain(LostError("a process ended"))
            wait([follower.pipe, *watched], timeout=POLL_S)
        try:
            message = follower.pipe.recv()
        except (EOFError, OSError) as error:
            raise self.explain(error) from error
        if isinstance(message, Failure):
            follower.failure = message
            raise self.explain(LostError("a process failed"))
        assert isinstance(message, tuple)
        return message

    def explain(self, error: Exception) -> Exception:
        """The reason why an exchange with the followers failed: the first cause among them, as an error to raise."""
        deadline = time.monotonic() + REASON_S
        while time.monotonic() < deadline:
            for follower in self.followers:
                follower.read_failure()
            if self._first_causes() or not any(f.process.is_alive() for f in self.followers):
                break
            time.sleep(POLL_S)
        for follower in self.followers:
            follower.read_failure()
        if causes := self._first_causes():
            return self._as_error(causes[0])
        if "timed out" in str(error).lower():
            waiting = ", ".join(str(f.process.pid) for f in self.followers)
            return fail(
                "E516",
                f"the {self.size} processes of this run waited {TIMEOUT_S:,.0f} s for one another",
                remedy=f"see what processes {waiting} hang in (py-spy dump --pid ...), or set hardware.processes=1; "
                "the same command continues from the last checkpoint",
            )
        remedy = "the same command continues from the last checkpoint; hardware.processes=1 needs no exchange"
        return fail("E516", f"the {self.size} processes of this run lost each other: {error}", remedy=remedy)

    def _first_causes(self) -> list[Follower]:
        """Those that failed of themselves; those that were killed, which left no reason."""
        failed = [f for f in self.followers if f.failure is not None and not f.failure.is_secondary]
        return failed or [f for f in self.followers if f.failure is None and (f.process.exitcode or 0) < 0]

    def _as_error(self, follower: Follower) -> Exception:
        who = f"process {follower.rank + 1} of {self.size}"
        failure = follower.failure
        if failure is not None and failure.problems:
            return MlkdError(failure.problems)
        if failure is not None:
            self.tell_trace(f"{who}:\n{failure.trace}")
            remedy = "train.log has its traceback; the same command continues from the last checkpoint"
            return fail("E102", f"{who} failed: {failure.what}", remedy=remedy)
        name = signal.Signals(-(follower.process.exitcode or 0)).name
        remedy = "the system kills what takes its last memory: lower hardware.processes or hardware.max_tokens; "
        remedy += "the same command continues from the last checkpoint"
        return fail("E515", f"{who} was killed ({name})", remedy=remedy)

    def _end(self, *, at_once: bool) -> None:
        """Wait for the followers that were told to stop, and kill those that do not, or all of them."""
        self.is_ending = True
        deadline = time.monotonic() + (0.0 if at_once else END_S)
        for follower in self.followers:
            follower.process.join(max(0.0, deadline - time.monotonic()))
        for follower in self.followers:
            # Not SIGTERM, which they ignore; they write no files.
            follower.process.kill()
            follower.process.join()
        if self.watcher is not None:
            self.watcher.join()
        for follower in self.followers:
            follower.process.close()
            follower.pipe.close()
        self.followers = []


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Let processes that start now never see the signals that end a run; they wait for this process meanwhile."""
    resource_tracker.ensure_running()  # the first process to start would start it, which unblocks signals (3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
