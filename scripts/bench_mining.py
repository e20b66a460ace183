"""Time and peak memory of exact neighbour search both ways: `python scripts/bench_mining.py 20000 20000 384`."""

from __future__ import annotations

import argparse
import resource
import time

import torch

from mlkd.mining.neighbours import Backend, NeighbourSearch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_source", type=int)
    parser.add_argument("num_target", type=int)
    parser.add_argument("num_dimensions", type=int)
    parser.add_argument("--num-neighbours", type=int, default=4)
    parser.add_argument("--block-mb", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--backend", choices=[backend.value for backend in Backend], default="torch")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    source = torch.randn(arguments.num_source, arguments.num_dimensions, generator=generator)
    target = torch.randn(arguments.num_target, arguments.num_dimensions, generator=generator)
    flops = 2 * arguments.num_source * arguments.num_target * arguments.num_dimensions
    for block_mb in arguments.block_mb:
        search = NeighbourSearch(backend=Backend(arguments.backend), device=arguments.device, block_mb=block_mb)
        start = time.perf_counter()
        search.both_ways(source, target, arguments.num_neighbours)
        seconds = time.perf_counter() - start
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rate = flops / seconds / 1e9
        print(f"block {block_mb:4d} MB: {seconds:7.2f} s, {rate:7.1f} GFLOP/s of products, peak {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
