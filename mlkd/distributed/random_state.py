"""Random state of dropout: of this process, and beside those of others in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]


def random_state(device: torch.device) -> State:
    """State of the random numbers of the CPU and, where a run is on one, of the CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def of_rank(state: Mapping[str, Tensor], rank: int) -> State:
    """A process's state as it stands in a checkpoint: rank 0's by plain names, others' with their rank behind.

    >>> list(of_rank({"cpu": torch.empty(0)}, 0)), list(of_rank({"cpu": torch.empty(0)}, 1))
    (['cpu'], ['cpu-1'])
    """
    return {f"{name}-{rank}" if rank else name: value for name, value in state.items()}


def from_checkpoint(saved: Mapping[str, Tensor], rank: int) -> State | None:
    """The state that a process of this rank saved; None where there was none."""
    state = {name: saved[key] for name in ("cpu", "cuda") if (key := f"{name}-{rank}" if rank else name) in saved}
    return state if "cpu" in state else None


def num_streams(saved: Mapping[str, Tensor]) -> int:
    """How many processes saved this."""
    return sum(name.startswith("cpu") for name in saved)
