"""Shards: one process's share of a mining, block by block, and the wait for the blocks of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mlkd.config.mine_schema import MineConfig
from mlkd.errors import EXIT_PREEMPTED, MlkdError, Problem
from mlkd.mining.neighbour_blocks import NeighbourBlocks
from mlkd.mining.vector_blocks import Encode, VectorBlocks

POLL_S = 2.0
LogProgress = Callable[[str], None]


class UnfinishedError(MlkdError):
    """This shard's part is saved and others are needed to go on: the same command continues."""

    @property
    def exit_code(self) -> int:
        return EXIT_PREEMPTED


@dataclass(slots=True)
class Throughput:
    """Throughput of this process: sentences and the seconds they took."""

    num_sentences: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Sentences per second, None where there was nothing to do."""
        return self.num_sentences / self.seconds if self.num_sentences else None


def encode_share(
    config: MineConfig, sides: Sequence[VectorBlocks], encode: Encode, log_progress: LogProgress
) -> Throughput:
    """Encode what is missing of this shard's blocks; blocks of both sides count through."""
    jobs = [(side, block) for side in sides for block in range(len(side))]
    mine = jobs[config.shard :: config.num_shards]
    missing = {id(side): set(side.missing()) for side in sides}
    todo = [(side, block) for side, block in mine if block in missing[id(side)]]
    return _run_jobs("encoded", [partial(side.encode, block, encode) for side, block in todo], log_progress)


def wait_for_vectors(config: MineConfig, sides: Sequence[VectorBlocks], log_progress: LogProgress) -> None:
    """Return when no vectors are missing.

    Raises:
        UnfinishedError: E330 when none came in for `wait_minutes`.
    """
    jobs = [(side, block) for side in sides for block in range(len(side))]
    since, before = time.monotonic(), -1
    while True:
        missing = {(id(side), block) for side in sides for block in side.missing()}
        shards = sorted({n % config.num_shards for n, (side, block) in enumerate(jobs) if (id(side), block) in missing})
        if not missing:
            return
        if len(missing) != before:
            since, before = time.monotonic(), len(missing)
            log_progress(f"{len(missing)} blocks are not encoded yet, by shards {', '.join(map(str, shards))}")
        if time.monotonic() - since >= 60 * config.wait_minutes:
            what = f"{len(missing)} of {len(jobs)} blocks are not encoded, by shards {', '.join(map(str, shards))}"
            raise UnfinishedError(
                Problem(
                    "E330", what, remedy=f"run these shards (of num_shards={config.num_shards}), then this one again"
                )
            )
        time.sleep(min(POLL_S, 60 * config.wait_minutes))


def search_share(config: MineConfig, blocks: NeighbourBlocks, log_progress: LogProgress) -> Throughput:
    """Search what is missing of this shard's blocks of the source."""
    todo = [block for block in blocks.missing() if block % config.num_shards == config.shard]
    return _run_jobs("searched", [partial(blocks.search_block, block) for block in todo], log_progress)


def _run_jobs(verb: str, jobs: Sequence[Callable[[], int]], log_progress: LogProgress) -> Throughput:
    throughput = Throughput()
    for number, job in enumerate(jobs, start=1):
        start = time.perf_counter()
        throughput.num_sentences += job()
        throughput.seconds += time.perf_counter() - start
        left = throughput.seconds / number * (len(jobs) - number)
        log_progress(f"{verb} block {number} of {len(jobs)}: {throughput.rate:,.0f} sentences/s, {left:,.0f} s left")
    return throughput
