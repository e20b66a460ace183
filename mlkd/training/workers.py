"""Worker processes: one process leads as if it were alone, the others build the same and take its steps."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import torch

from mlkd.config.train_schema import TrainConfig
from mlkd.distributed.launcher import Failure, Launcher
from mlkd.distributed.process_group import ProcessGroup, checksums
from mlkd.distributed.random_state import random_state
from mlkd.errors import fail
from mlkd.evaluation.evaluator import Evaluator
from mlkd.runtime.checkpoints import load_latest
from mlkd.runtime.devices import return_free_memory
from mlkd.runtime.hashing import fingerprint
from mlkd.runtime.progress import SHOWN_BY_BAR
from mlkd.runtime.signals import SIGNALS
from mlkd.training.preflight import PreflightResult
from mlkd.training.resume import restore_training_state
from mlkd.training.setup import set_up
from mlkd.training.trainer import Trainer

log = logging.getLogger("mlkd")


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker begins with.

    Args:
        config: of the run.
        preflight: what rank 0 resolved, without evaluations; a worker takes the GPU of its rank.
        threads: of each process.
        checkpoints: folder of the run's checkpoints; None for a dry run.
        step: of the checkpoint that the run continues from, or None.
    """

    config: TrainConfig
    preflight: PreflightResult
    threads: int
    checkpoints: Path | None = None
    step: int | None = None

    @classmethod
    def of(
        cls, config: TrainConfig, preflight: PreflightResult, checkpoints: Path | None = None, step: int | None = None
    ) -> WorkerStart:
        """For a run of as many threads as this process has."""
        without_tasks = replace(preflight, evaluations=Evaluator([]))
        return cls(config, without_tasks, torch.get_num_threads(), checkpoints, step)


@dataclass(slots=True)
class WorkerGroup:
    """The processes of a run around its training: a context manager for the one that leads; alone it does nothing.

    What only one process can do, such as to fill the caches, is done before; the others find it there.

    Args:
        start: given to the others.
        trainer: of this process.
    """

    start: WorkerStart
    trainer: Trainer
    launcher: Launcher = field(init=False)

    def __post_init__(self) -> None:
        self.launcher = Launcher(self.start.config.hardware.num_processes, run_worker, (self.start,), log_traceback)

    @property
    def device(self) -> torch.device:
        return self.start.preflight.device

    def __enter__(self) -> WorkerGroup:
        self.launcher.__enter__()
        self.trainer.process_group = ProcessGroup(0, self.launcher.size)
        return self

    def join(self, stop: Callable[[], None]) -> None:
        """Wait until all are ready, and begin to train together from this process's weights.

        Args:
            stop: called while waiting; raises when the run must end.

        Raises:
            MlkdError: what stopped another process; E517 where one built something else.
        """
        if self.launcher.size == 1:
            return
        own = digest(self.trainer)
        for rank, (theirs,) in enumerate(self.launcher.receive(stop), start=1):
            if theirs != own:
                who = f"process {rank + 1} of {self.launcher.size}"
                what = f"{who} read other text or built another student than the first"
                remedy = "files changed while the run was starting: give the same command again"
                raise fail("E517", what, remedy=remedy)
        process_group = ProcessGroup(
            0,
            self.launcher.size,
            explain_failure=self.launcher.explain_failure,
            send=self.launcher.send,
            gather_answers=self.launcher.gather_answers,
        )
        process_group.init(self.device, announce=lambda port: self.launcher.send("join", port))
        self.launcher.monitor(process_group.abort)
        self.trainer.process_group = process_group
        process_group.broadcast(self.trainer.weights())
        log.info("%d processes train together", self.launcher.size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process_group, self.trainer.process_group = self.trainer.process_group, ProcessGroup()
        is_told = False
        try:
            if error is None:
                self.launcher.shut_down()
                is_told = True
        finally:
            process_group.destroy(abort=not is_told)
            self.launcher.__exit__(kind, error, trace)


def log_traceback(text: str) -> None:
    """Write a traceback into train.log; the terminal gets one line of it as the run's error."""
    log.error("%s", text, extra={SHOWN_BY_BAR: True})


def digest(trainer: Trainer) -> str:
    """Names what must be equal in all processes: texts, pairs, negatives, length of the run, shapes of the weights."""
    data = trainer.data
    arrays = [
        data.pairs.source,
        data.pairs.target,
        data.positions >= 0,  # not where: other runs may add to a shared cache meanwhile
        *([] if data.negatives is None else [data.negatives]),
    ]
    shapes = [str(tuple(t.shape)) for t in trainer.weights()]
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return fingerprint([*data.pairs.texts, *hashes, *shapes, str(trainer.intervals.total_steps)])


def run_worker(pipe: Connection, rank: int, size: int, start: WorkerStart) -> None:
    """One of the other processes, from its start to its end: does what rank 0 says until that says stop, or is gone."""
    for signum in SIGNALS:  # rank 0 decides when the run ends
        signal.signal(signum, signal.SIG_IGN)
    log.addHandler(logging.NullHandler())  # rank 0 says it all
    log.propagate = False
    warnings.simplefilter("ignore")
    process_group = ProcessGroup(rank, size)
    try:
        worker_loop(pipe, process_group, start)
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send(Failure.of(error))
        process_group.destroy(abort=True)
    else:
        process_group.destroy(abort=False)


def worker_loop(pipe: Connection, process_group: ProcessGroup, start: WorkerStart) -> None:
    """Build what rank 0 built, join it, and obey.

    Raises:
        EOFError: rank 0 is gone.
    """
    torch.set_num_threads(start.threads)
    device = start.preflight.device
    if device.type == "cuda":
        torch.cuda.set_device(process_group.rank)
    trainer = set_up(start.config, start.preflight, cache_is_filled=True).trainer
    trainer.process_group = process_group
    process_group.seed(start.config.seed, 0)
    if start.step is not None and start.checkpoints is not None:
        checkpoint = load_latest(start.checkpoints)
        if checkpoint is None or checkpoint.step != start.step:
            raise fail("E411", f"the checkpoint of step {start.step} in '{start.checkpoints}' is gone")
        restore_training_state(trainer, checkpoint)
    pipe.send((digest(trainer),))
    while (message := pipe.recv())[0] != "stop":
        match message:
            case ("join", int(port)):
                process_group.init(device, port)
                process_group.broadcast(trainer.weights())
            case ("step", bool(with_shares)):
                trainer.step(with_shares=with_shares)
                if with_shares:
                    return_free_memory()
            case ("state",):
                state = {name: value.numpy() for name, value in random_state(device).items()}
                pipe.send((state, checksums(trainer.weights())))
            case _:
                raise AssertionError(f"unknown message {message}")
