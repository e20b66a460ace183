"""Where a run computes: device, threads, attention kernel, memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from mlkd.errors import MlkdError, fail, out_of_range
from mlkd.runtime.precision import Precision, has_native_bf16

TORCH_THREADS = torch.get_num_threads()  # its own choice, before a run makes another


class Device(Enum):
    """auto takes a CUDA device if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True, slots=True)
class Hardware:
    """The machine's part of a configuration.

    Args:
        device: auto, cpu or cuda.
        precision: of the student's forward and backward pass; evaluation and exported weights are fp32.
        teacher_precision: of the teacher when its targets are computed; part of the cache's key.
        num_processes: that train together, on a GPU each, or on one CPU. They share out each batch: optim.batch_size
            stays the pairs that meet in one loss, and the result is that of one process, but for rounding and the
            random numbers of dropout. Evaluation, mining and the teacher use the first one alone.
        threads: CPU threads of each process; None leaves torch's choice, shared out among the processes. Bit-exact
            resume needs the same number.
        max_tokens: token positions in one forward pass, None for 2,048 on a CPU and 65,536 on a GPU. It bounds memory
            and changes no result beyond rounding.
        gradient_caching: batches of any size in the memory of one forward pass of max_tokens, for a second forward: a
            step takes about a third longer and gives the same gradients, bit by bit. Where a GPU's memory runs out it
            is switched on, and then max_tokens halved, until the batch fits.
        compile: torch.compile the student's transformer; pays on long GPU runs.
    """

    device: Device = Device.auto
    precision: Precision = Precision.fp32
    teacher_precision: Precision = Precision.fp32
    num_processes: int = 1
    threads: int | None = None
    max_tokens: int | None = None
    gradient_caching: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if problems := out_of_range(self, "num_processes", "threads", "max_tokens", ge=1):
            raise MlkdError(problems)

    def resolve(self) -> torch.device:
        """The device this machine really has for the `device` field; sets the thread count.

        Raises:
            MlkdError: E501 where CUDA is asked for and absent, or bf16 on a GPU without it; E209 for several processes,
                which only training knows.
        """
        if self.num_processes > 1:
            what = f"several processes serve training alone (got {self.num_processes})"
            raise fail("E209", what, where="hardware.num_processes", remedy="leave hardware.num_processes out")
        return self._resolve()

    def resolve_for_training(self) -> torch.device:
        """As `resolve`, for each of `num_processes`.

        Raises:
            MlkdError: E501 for more processes than GPUs; E518 in a process that torchrun started.
        """
        launched = os.environ.get("WORLD_SIZE", "1")
        if launched != "1" and "RANK" in os.environ:
            raise fail(
                "E518",
                f"a launcher such as torchrun started this command several times (WORLD_SIZE={launched})",
                remedy=f"start it once, without the launcher, with hardware.num_processes={launched}",
            )
        device = self._resolve()
        if device.type == "cuda" and self.num_processes > torch.cuda.device_count():
            count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
            seen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
            what = f"{self.num_processes} processes need a GPU each; torch sees {count}{seen}"
            raise fail("E501", what, where="hardware.num_processes", remedy=f"set hardware.num_processes={count}")
        if self.threads is None and self.num_processes > 1:
            torch.set_num_threads(max(1, TORCH_THREADS // self.num_processes))
        return device

    def _resolve(self) -> torch.device:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.device is Device.cuda and not torch.cuda.is_available():
            raise fail(
                "E501",
                "hardware.device=cuda, but torch sees no CUDA device",
                remedy="set hardware.device=cpu, or install a CUDA build of torch and check nvidia-smi",
            )
        use_cuda = self.device is not Device.cpu and torch.cuda.is_available()
        bf16 = Precision.bf16 in (self.precision, self.teacher_precision)
        if use_cuda and bf16 and not has_native_bf16(torch.device("cuda")):
            raise fail("E501", "this GPU has no bf16", remedy="set hardware.precision=fp32")
        return torch.device("cuda" if use_cuda else "cpu")

    def forward_tokens(self, device: torch.device) -> int:
        """Token positions in one forward pass on `device`."""
        return self.max_tokens or (65536 if device.type == "cuda" else 2048)


def place(backbone: Any, device: torch.device, precision: torch.dtype | None) -> None:
    """Move a transformer to `device` with the attention kernel that is fast there.

    On CPUs the backward pass of scaled_dot_product_attention in bf16 is several times slower than two matrix products.
    """
    backbone.to(device)
    if device.type == "cpu" and precision is torch.bfloat16 and hasattr(backbone, "set_attn_implementation"):
        backbone.set_attn_implementation("eager")


def return_free_memory() -> None:
    """Give memory that glibc keeps between steps of different shapes back to the system; nothing elsewhere.

    Without it the resident size of a CPU run of many batch shapes doubles within minutes.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: allocated on a GPU, resident in the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
