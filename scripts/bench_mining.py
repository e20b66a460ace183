"""Exact mining against LASER's steps and sentence-transformers' recipe: `python scripts/bench_mining.py --num 50000`.

Every contender mines the same vectors (planted pairs among noise), each in a process of its own, in turn. All find the
4 nearest neighbours in both directions and score them with the ratio margin:

laser  Artetxe & Schwenk 2019 as in LASER's mine_bitexts: faiss IndexFlatIP twice, scores in a Python loop, then the
       greedy one-to-one choice in a loop.
st     sentence-transformers' mining example: the same with an inverted file (approximate; 16,384 lists there, here at
       most one for 39 rows, 8 lists looked into).
ours   NeighbourSearch.both_ways and retrieve.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlkd.knn.margins import Margin
from mlkd.knn.neighbours import NeighbourSearch
from mlkd.knn.retrieval import Retrieval, retrieve
from mlkd.knn.similarity_precision import Precision

K = 4
CONTENDERS = ("laser", "st", "ours fp32", "ours bf16")
Array = Any


def vectors(num: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters as sentences form them; half of the sources have a translation. No row occurs twice: LASER removes
    repetitions first."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(max(1, num // 20), dim, generator=generator)
    source = centres[torch.randint(len(centres), (num,), generator=generator)]
    source = source + torch.randn(num, dim, generator=generator)
    target = centres[torch.randint(len(centres), (num,), generator=generator)]
    target = target + torch.randn(num, dim, generator=generator)
    half = num // 2
    target[:half] = source[:half] + 0.7 * torch.randn(half, dim, generator=generator)
    target = target[torch.randperm(num, generator=generator)]
    normalize = torch.nn.functional.normalize
    return normalize(source, dim=1), normalize(target, dim=1)


def ours(source: torch.Tensor, target: torch.Tensor, precision: Precision) -> tuple[Array, Array]:
    forward, backward = NeighbourSearch(precision=precision).both_ways(source, target, K)
    mined = retrieve(forward, backward, Margin.ratio, Retrieval.max)
    return mined.source.numpy(), mined.target.numpy()


def flat(faiss: Any, corpus: Array) -> Any:
    index = faiss.IndexFlatIP(corpus.shape[1])
    if torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources"):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(corpus)
    return index


def inverted_file(faiss: Any, corpus: Array) -> Any:
    lists = max(1, min(16384, len(corpus) // 39))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(corpus.shape[1]), corpus.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(8, lists)
    index.train(corpus)
    index.add(corpus)
    return index


def by_faiss(source: Array, target: Array, build: Callable[[Any, Array], Any]) -> tuple[Array, Array]:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    forward, forward_row = build(faiss, target).search(source, K)
    backward, backward_row = build(faiss, source).search(target, K)
    forward_mean, backward_mean = forward.mean(axis=1), backward.mean(axis=1)
    forward_best, forward_score = best_in_a_loop(source, target, forward_row, forward_mean, backward_mean)
    backward_best, backward_score = best_in_a_loop(target, source, backward_row, backward_mean, forward_mean)
    sources = np.concatenate((np.arange(len(source)), backward_best))
    targets = np.concatenate((forward_best, np.arange(len(target))))
    order = np.argsort(-np.concatenate((forward_score, backward_score)), kind="stable")
    kept, used_sources, used_targets = [], set(), set()
    for pair in order:
        if sources[pair] not in used_sources and targets[pair] not in used_targets:
            used_sources.add(sources[pair])
            used_targets.add(targets[pair])
            kept.append(pair)
    return sources[kept], targets[kept]


def best_in_a_loop(x: Array, y: Array, neighbour: Array, x_mean: Array, y_mean: Array) -> tuple[Array, Array]:
    scores = np.zeros(neighbour.shape)
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            k = neighbour[i, j]
            scores[i, j] = x[i].dot(y[k]) / ((x_mean[i] + y_mean[k]) / 2)
    best = scores.argmax(axis=1)
    return neighbour[np.arange(len(x)), best], scores.max(axis=1)


def run(contender: str, num: int, dim: int) -> dict[str, Any]:
    """In a process of its own: seconds, peak memory beyond what was there before, and the pairs."""
    source, target = vectors(num, dim)
    mine: Callable[[torch.Tensor, torch.Tensor], tuple[Array, Array]] = {
        "laser": lambda s, t: by_faiss(s.numpy(), t.numpy(), flat),
        "st": lambda s, t: by_faiss(s.numpy(), t.numpy(), inverted_file),
        "ours fp32": lambda s, t: ours(s, t, Precision.fp32),
        "ours bf16": lambda s, t: ours(s, t, Precision.bf16),
    }[contender]
    mine(source[:3000], target[:3000])  # imports, kernels
    before = resident_mb()
    reset_peak()
    start, start_cpu = time.perf_counter(), time.process_time()
    sources, targets = mine(source, target)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    order = np.argsort(sources, kind="stable")
    pairs = np.stack([sources[order], targets[order]]).astype(np.int64)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb() - before,
        "num_pairs": len(sources),
        "pairs": hashlib.sha256(pairs.tobytes()).hexdigest()[:12],
    }


def status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def resident_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    return status_kb("VmRSS") / 1024 if sys.platform == "linux" else peak_mb()


def reset_peak() -> None:
    """Of the host, or where there is a GPU of torch's share of its memory (faiss allocates its own)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "linux":
        return status_kb("VmHWM") / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_gflops(dim: int, dtype: torch.dtype) -> float:
    """Of one large product on this machine, the best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 8192 if device == "cuda" else 2048
    a, b = torch.randn(side, dim, device=device).to(dtype), torch.randn(side, dim, device=device).to(dtype)
    out, best = torch.empty(side, side, dtype=dtype, device=device), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(a, b.T, out=out)
        float(out[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * side * side * dim / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, nargs="+", default=[25000, 50000, 100000])
    parser.add_argument("--dim", type=int, nargs="+", default=[256, 768, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", nargs="+", default=[], choices=CONTENDERS)
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(arguments.run, arguments.num[0], arguments.dim[0])))
        return
    contenders = [name for name in CONTENDERS if name not in arguments.skip]
    for dim in arguments.dim:
        peak = {"fp32": peak_gflops(dim, torch.float32), "bf16": peak_gflops(dim, torch.bfloat16)}
        print(f"\nD = {dim}; one product alone: fp32 {peak['fp32']:.0f} GFLOP/s, bf16 {peak['bf16']:.0f}")
        for num in arguments.num:
            compare(contenders, num, dim, arguments.repeats, peak)


def compare(contenders: list[str], num: int, dim: int, repeats: int, peak: dict[str, float]) -> None:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name in contenders:
            command = [sys.executable, __file__, "--run", name, "--num", str(num), "--dim", str(dim)]
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name].append(json.loads(finished.stdout.splitlines()[-1]))
    base = contenders[0]
    for name, runs in results.items():
        seconds = statistics.median(r["seconds"] for r in runs)
        cpu = statistics.median(r["cpu_seconds"] for r in runs)
        times = statistics.median(b["seconds"] / r["seconds"] for b, r in zip(results[base], runs, strict=True))
        cpu_times = statistics.median(
            b["cpu_seconds"] / r["cpu_seconds"] for b, r in zip(results[base], runs, strict=True)
        )
        rate = 2 * num * num * dim / seconds / 1e9
        share = rate / peak["bf16" if "bf16" in name else "fp32"]
        same = "same pairs" if runs[0]["pairs"] == results[contenders[-1]][0]["pairs"] else "other pairs"
        print(
            f"N = {num:>7}  {name:<10} {seconds:8.2f} s (CPU {cpu:8.2f} s)  "
            f"{times:5.2f} x {base} (CPU {cpu_times:5.2f} x)  "
            f"{rate:7.0f} GFLOP/s = {share:4.0%} of a product  +{runs[0]['peak_mb']:5.0f} MB  "
            f"{runs[0]['num_pairs']} pairs, {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
