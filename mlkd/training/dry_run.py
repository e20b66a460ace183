"""Dry run: everything is checked and built, one step is taken on one batch, sizes and time are printed."""

from __future__ import annotations

import time

import torch

from mlkd.config.train_schema import TrainConfig
from mlkd.models.size import describe_size
from mlkd.runtime.devices import peak_memory_bytes
from mlkd.training.preflight import run_preflight
from mlkd.training.setup import set_up
from mlkd.training.workers import WorkerGroup, WorkerStart

TIMED_STEPS = 3


def dry_run(config: TrainConfig) -> None:
    """Print parameters, memory, steps and estimated time; writes nothing but the shared cache.

    Raises:
        MlkdError: whatever would stop the run before its first step.
    """
    preflight = run_preflight(config)
    setup = set_up(config, preflight)
    run = setup.trainer
    sizes = describe_size(run.student)
    with WorkerGroup(WorkerStart.of(config, preflight), run) as workers:
        workers.join(lambda: None)
        values, _, _ = run.step()  # the first step pays for warm-up
        start = time.perf_counter()
        for _ in range(TIMED_STEPS):
            run.step()
        if preflight.device.type == "cuda":
            torch.cuda.synchronize()
        step_s = (time.perf_counter() - start) / TIMED_STEPS
    total = run.intervals.total_steps
    pairs = run.data.pairs
    shared = "" if config.hardware.num_processes == 1 else f", in each of {config.hardware.num_processes} processes"
    print(f"device        {preflight.device}, {run.precision or torch.float32}{shared}")
    print(f"parameters    {sizes['parameters']:,} ({sizes['parameters_without_embeddings']:,} without embeddings)")
    print(f"dimension     {sizes['dimension']}")
    print(f"pairs         {sum(pairs.language_sizes):,} in {len(pairs.language_sizes)} languages")
    print(f"steps         {total:,} of {run.pairs_per_step:,} pairs")
    print(f"first loss    {float(values.total.detach()):.6g}")
    print(f"peak memory   {peak_memory_bytes(preflight.device) / 2**20:,.0f} MiB")
    print(f"time          {step_s:.3f} s a step, about {total * step_s / 60:.1f} min without evaluations")
