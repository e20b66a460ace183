"""Learning rate schedules: linear warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math
from enum import Enum


class Schedule(Enum):
    """The learning rate after warm-up."""

    constant = "constant"
    linear = "linear"  # falls to 0 at the last step
    cosine = "cosine"  # half a cosine, to 0 at the last step


def scheduled_rate(peak: float, schedule: Schedule, step: int, warmup: int, total_steps: int) -> float:
    """The learning rate at optimiser step `step`, counted from 0.

    Args:
        peak: reached at the end of warm-up.
        schedule: after warm-up.
        step: of the run.
        warmup: steps of linear warm-up from 0.
        total_steps: of the run.

    >>> [round(scheduled_rate(1.0, Schedule.cosine, s, 2, 6), 2) for s in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total_steps - warmup)
    if schedule is Schedule.linear:
        return peak * (1 - share)
    if schedule is Schedule.cosine:
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    return peak
