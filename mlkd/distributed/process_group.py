"""Process group: what the processes that train one student agree on and what they sum.

CPU tensors go through gloo, CUDA tensors through NCCL. Every exchange of tensors begins with a word that each process
says through gloo: one that ran out of device memory tells it there, so that all of them go back and try again, and a
process that died is noticed there at once, where NCCL would wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT_S = 600.0  # for one exchange; evaluations and checkpoints come between exchanges and may take any time
LARGE = 2**20  # entries from which a tensor is summed where it is instead of in one piece with others
STREAM = 0x72616E6B  # keeps these random numbers apart from others of the same seed
HOST = "127.0.0.1"


class PeerOutOfMemoryError(torch.OutOfMemoryError):
    """Another process ran out of device memory: this one goes back with it."""


class LostProcessError(RuntimeError):
    """An exchange with the other processes failed; what happened to them is the reason."""


@dataclass(slots=True)
class ProcessGroup:
    """All processes of a run; one alone exchanges nothing.

    Args:
        rank: of this process; 0 leads, and it alone reads signals, evaluates and writes.
        size: number of processes, R.
        explain: turns a failed exchange into the error to raise.
        tell: sends a message to all others; for rank 0, see `mlkd.distributed.launcher`.
        ask: sends one and gives each one's answer.
    """

    rank: int = 0
    size: int = 1
    explain_failure: Callable[[Exception], Exception] = lambda error: LostProcessError(str(error))
    send: Callable[..., None] = lambda *message: None
    gather_answers: Callable[..., list[tuple[Any, ...]]] = lambda *message: []
    nccl: Any = field(default=None, init=False)
    is_aborted: bool = field(default=False, init=False)

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.size > 1

    def partition(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which of N texts each process reads: every text once, the long ones spread evenly, the same answer on all.

        >>> ProcessGroup(size=2).partition([5, 9, 2, 7, 4])
        [[1, 4, 2], [3, 0]]
        """
        if not self.is_distributed:
            return [list(range(len(lengths)))]
        by_length = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        parts: list[list[int]] = [[] for _ in range(self.size)]
        for place, i in enumerate(by_length):
            # There and back again: the first process would otherwise have the longest text of every round.
            turn = place % (2 * self.size)
            parts[min(turn, 2 * self.size - 1 - turn)].append(i)
        return parts

    def synchronize(self, *, out_of_memory: bool = False) -> None:
        """Wait for the others' word, and give one.

        Raises:
            PeerOutOfMemoryError: another process ran out of memory, and this one did not.
        """
        if not self.is_distributed:
            return
        word = torch.tensor([int(out_of_memory)])
        self._exchange(word, dist.ReduceOp.MAX)
        if word.item() and not out_of_memory:
            raise PeerOutOfMemoryError("another process of this run is out of device memory")

    def sum(self, *tensors: Tensor) -> None:
        """Replace contiguous `tensors` by their sums over all processes, the same bits on each."""
        self.synchronize()
        for tensor in tensors:
            self._exchange(tensor, dist.ReduceOp.SUM)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors` by their means over all processes, the same bits on each."""
        if not self.is_distributed:
            return
        large = [t for t in tensors if t.numel() >= LARGE and t.is_contiguous()]
        small = [t for t in tensors if not (t.numel() >= LARGE and t.is_contiguous())]
        groups = [list(group) for _, group in groupby(small, key=lambda t: t.dtype)]
        # All memory is asked for before the others are told to go on.
        flat = [torch.cat([t.reshape(-1) for t in group]) for group in groups]
        self.sum(*large, *flat)
        torch._foreach_mul_([*large, *flat], 1 / self.size)
        for group, joined in zip(groups, flat, strict=True):
            for tensor, part in zip(group, torch.split(joined, [t.numel() for t in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag, whether a process has raised it."""
        if not self.is_distributed:
            return list(flags)
        self.synchronize()
        raised = torch.tensor(flags, dtype=torch.uint8)
        self._exchange(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors` by those of rank 0."""
        if not self.is_distributed:
            return
        self.synchronize()
        for tensor in tensors:
            own = tensor.detach().contiguous()
            sent = own.view(torch.uint8) if own.dtype is torch.bool else own
            with self._explained():
                dist.broadcast(sent, 0, group=self._group(sent))
            tensor.detach().copy_(own)

    def seed(self, seed: int, step: int) -> None:
        """Start this process's random stream, that of dropout, where no checkpoint holds one of its own."""
        state = np.random.SeedSequence([seed, STREAM, self.rank, step]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))

    def init(self, device: torch.device, port: int = 0, *, announce: Callable[[int], None] | None = None) -> None:
        """Join the group; returns when all are there.

        Args:
            device: of the run; its index is not looked at.
            port: of this machine, where rank 0 waits.
            announce: given by rank 0, which tells the others its port by it.
        """
        for name in ("lo", "lo0"):  # the machine's own name may lead to a network that comes and goes
            if name in (found for _, found in socket.if_nameindex()):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        timeout = timedelta(seconds=TIMEOUT_S)
        with self._explained():
            store: Any = dist.TCPStore(  # type: ignore[attr-defined]
                HOST, port, self.size, is_master=self.rank == 0, timeout=timeout, wait_for_workers=False
            )
            if announce is not None:
                announce(store.port)
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=timeout)
            if device.type == "cuda":
                self.nccl = dist.new_group(backend="nccl", timeout=timeout)

    def destroy(self, *, abort: bool) -> None:
        """Leave the group; `abort` where the others may be gone."""
        if not dist.is_initialized():
            return
        try:
            if abort:
                self.abort()
        finally:
            self.nccl = None
            dist.destroy_process_group()

    def abort(self) -> None:
        """End what waits in NCCL for a process that is gone, which does not end by itself; from any thread."""
        if self.nccl is not None and not self.is_aborted:
            self.is_aborted = True
            self.nccl.abort()

    def _exchange(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        with self._explained():
            dist.all_reduce(tensor, operation, group=self._group(tensor))

    def _group(self, tensor: Tensor) -> Any:
        return self.nccl if tensor.is_cuda else None  # None is the group of all, gloo's

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise self.explain_failure(error) from error


def checksums(tensors: Iterable[Tensor]) -> list[int]:
    """Of each tensor, the sum of its bits read as integers: in any order the same, so equal weights have equal sums."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [int(t.detach().contiguous().view(integers[t.element_size()]).sum(dtype=torch.int64)) for t in tensors]
