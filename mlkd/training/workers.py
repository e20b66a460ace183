"""Training by several processes: one leads as if it were alone, the others build the same and take its steps."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import torch

from mlkd.config.train_schema import TrainConfig
from mlkd.distributed.launcher import Crew, Failure
from mlkd.distributed.process_group import Ranks, checksums
from mlkd.distributed.random_state import random_state
from mlkd.errors import fail
from mlkd.evaluation.evaluator import Evaluator
from mlkd.runtime.checkpoints import load_latest
from mlkd.runtime.devices import return_free_memory
from mlkd.runtime.hashing import fingerprint
from mlkd.runtime.progress import SHOWN_BY_BAR
from mlkd.runtime.signals import SIGNALS
from mlkd.training.preflight import Checked
from mlkd.training.setup import prepare
from mlkd.training.trainer import Distillation

log = logging.getLogger("mlkd")


@dataclass(frozen=True, slots=True)
class Start:
    """What a follower begins with.

    Args:
        config: of the run.
        device: its type; a follower takes the GPU of its rank.
        threads: of each process.
        checkpoints: folder of the run's checkpoints; None for a dry run.
        step: of the checkpoint that the run continues from, or None.
    """

    config: TrainConfig
    device: str
    threads: int
    checkpoints: Path | None = None
    step: int | None = None


@dataclass(slots=True)
class Team:
    """The processes of a run around its training: a context manager for the one that leads; alone it does nothing.

    What only one process can do, such as to fill the caches, is done before; the others find it there.

    Args:
        start: given to the others.
        distillation: of this process.
    """

    start: Start
    distillation: Distillation
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        self.crew = Crew(self.start.config.hardware.processes, follow, (self.start,), tell_trace)

    @property
    def device(self) -> torch.device:
        return torch.device(self.start.device)

    def __enter__(self) -> Team:
        self.crew.__enter__()
        self.distillation.ranks = Ranks(0, self.crew.size)
        return self

    def join(self, stop: Callable[[], None]) -> None:
        """Wait until all are ready, and begin to train together from this process's weights.

        Args:
            stop: called while waiting; raises when the run must end.

        Raises:
            MlkdError: what stopped another process; E517 where one built something else.
        """
        if self.crew.size == 1:
            return
        own = digest(self.distillation)
        for rank, (theirs,) in enumerate(self.crew.hear(stop), start=1):
            if theirs != own:
                what = f"process {rank + 1} of {self.crew.size} read other text or built another student than the first"
                remedy = "files changed while the run was starting: give the same command again"
                raise fail("E517", what, remedy=remedy)
        ranks = Ranks(0, self.crew.size, explain=self.crew.explain, tell=self.crew.tell, ask=self.crew.ask)
        ranks.connect(self.device, announce=lambda port: self.crew.tell("join", port))
        self.crew.watch(ranks.abort)
        self.distillation.ranks = ranks
        ranks.take_from_first(self.distillation.weights())
        log.info("%d processes train together", self.crew.size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ranks, self.distillation.ranks = self.distillation.ranks, Ranks()
        is_told = False
        try:
            if error is None:
                self.crew.dismiss()
                is_told = True
        finally:
            ranks.leave(abort=not is_told)
            self.crew.__exit__(kind, error, trace)


def tell_trace(text: str) -> None:
    """Write a traceback into train.log; the terminal gets one line of it as the run's error."""
    log.error("%s", text, extra={SHOWN_BY_BAR: True})


def digest(distillation: Distillation) -> str:
    """Names what must be equal in all processes: texts, pairs, negatives, length of the run, shapes of the weights."""
    data = distillation.data
    arrays = [
        data.pairs.source,
        data.pairs.target,
        data.positions >= 0,  # not where: other runs may add to a shared cache meanwhile
        *([] if data.negatives is None else [data.negatives]),
    ]
    shapes = [str(tuple(t.shape)) for t in distillation.weights()]
    hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return fingerprint([*data.pairs.texts, *hashes, *shapes, str(distillation.rhythm.total_steps)])


def follow(pipe: Connection, rank: int, size: int, start: Start) -> None:
    """One of the other processes, from its start to its end: does what rank 0 says until that says stop, or is gone."""
    for signum in SIGNALS:  # rank 0 decides when the run ends
        signal.signal(signum, signal.SIG_IGN)
    log.addHandler(logging.NullHandler())  # rank 0 says it all
    log.propagate = False
    warnings.simplefilter("ignore")
    ranks = Ranks(rank, size)
    try:
        take_steps(pipe, ranks, start)
    except BaseException as error:
        with contextlib.suppress(OSError):
            pipe.send(Failure.of(error))
        ranks.leave(abort=True)
    else:
        ranks.leave(abort=False)


def take_steps(pipe: Connection, ranks: Ranks, start: Start) -> None:
    """Build what rank 0 built, join it, and obey.

    Raises:
        EOFError: rank 0 is gone.
    """
    torch.set_num_threads(start.threads)
    device = torch.device(start.device)
    if device.type == "cuda":
        torch.cuda.set_device(ranks.rank)
    distillation = prepare(start.config, Checked(device, Evaluator([])), None, lambda: None, follows=True).distillation
    distillation.ranks = ranks
    ranks.seed(start.config.seed, 0)
    if start.step is not None and start.checkpoints is not None:
        checkpoint = load_latest(start.checkpoints)
        if checkpoint is None or checkpoint.step != start.step:
            raise fail("E411", f"the checkpoint of step {start.step} in '{start.checkpoints}' is gone")
        distillation.restore(checkpoint)
    pipe.send((digest(distillation),))
    while (message := pipe.recv())[0] != "stop":
        match message:
            case ("join", int(port)):
                ranks.connect(device, port)
                ranks.take_from_first(distillation.weights())
            case ("step", bool(with_shares)):
                distillation.step(with_shares=with_shares)
                if with_shares:
                    return_free_memory()
            case ("state",):
                state = {name: value.numpy() for name, value in random_state(device).items()}
                pipe.send((state, checksums(distillation.weights())))
            case _:
                raise AssertionError(f"unknown message {message}")
