"""Efficiency: how large an encoder is, how fast it encodes, and how much memory that takes, on this machine.

Shapes: N sentences, D dimensions.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from mlkd.data.formats.tsv import read_lines
from mlkd.errors import Problem, fail, out_of_range
from mlkd.models.encoder import Encoder
from mlkd.runtime.environment import cpu_model
from mlkd.tasks.base import Task, hash_rows
from mlkd.tasks.data_sources import check_embedded, language_problems
from mlkd.tasks.scoring.scores import Score, TaskResult

_MIB = 2**20
_POLL_S = 0.002
_STATM = Path("/proc/self/statm")


@dataclass(kw_only=True, slots=True)
class EfficiencyTask(Task):
    """Size, speed and memory of an encoder; its numbers hold for the machine that the protocol names.

    Scores, all of language `mean`: `sentences_per_s` and `tokens_per_s` (median of the passes), `peak_memory_mb` (MiB
    beyond the weights, while the first pass runs: of the device, or the process's resident memory on a CPU),
    `weights_mb`, `parameters`, `parameters_without_embeddings`, `dimension`. What an encoder cannot tell (tokens and
    parameters of one that only has `encode`, resident memory outside Linux) is undefined. There are no intervals: the
    passes are not a sample of anything.

    Args:
        path: file of one sentence a line; empty for the embedded everyday sentences.
        languages: of the embedded sentences.
        max_texts: sentences of a pass, the first ones (of the embedded, as many of each language); None for all.
        batch_size: sentences given to the encoder at once.
        num_warmup_passes: passes before the timed ones.
        num_passes: timed passes, of which the median counts.

    Source:
        Mao & Nakagawa 2023, "LEALLA: Learning Lightweight Language-agnostic Sentence Embeddings with Knowledge
        Trainer", whose subject is the trade of size and speed for accuracy.
    """

    needs_uncached: ClassVar[bool] = True

    name: str = "efficiency"
    path: str = ""
    languages: list[str] = field(default_factory=lambda: ["en", "de", "es", "ru", "zh"])
    max_texts: int | None = 320
    batch_size: int = 64
    num_warmup_passes: int = 1
    num_passes: int = 5

    def _field_problems(self) -> list[Problem]:
        problems = Task._field_problems(self) + language_problems(self.languages, "languages")
        return problems + out_of_range(self, "max_texts", "batch_size", "num_warmup_passes", "num_passes", ge=1)

    def load(self) -> list[str]:
        """The sentences of a pass."""
        if self.path:
            texts = [line for line in read_lines(self.path).lines if line.strip()]
            if not texts:
                raise fail("E303", f"{self.path} has no line with text")
        else:
            columns = [_embedded(language) for language in self.languages]
            texts = [text for row in zip(*columns, strict=True) for text in row]
        return texts[: self.max_texts]

    def texts(self, data: Any) -> Iterator[str]:
        sentences: list[str] = data
        yield from sentences

    def score(self, data: Any, encoder: Encoder, teacher: Encoder | None = None) -> TaskResult:
        texts: list[str] = data
        batches = [texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        device = device_of(encoder)
        dimension = 0

        def one_pass() -> None:
            nonlocal dimension
            for batch in batches:
                dimension = encoder.encode(batch).shape[1]

        peak_memory = peak_bytes(one_pass, device)
        for _ in range(self.num_warmup_passes - 1):
            one_pass()
        seconds = [timed(one_pass, device) for _ in range(self.num_passes)]
        median_s = statistics.median(seconds)
        num_tokens = count_tokens(encoder, texts)
        values: dict[str, float | None] = {
            "sentences_per_s": len(texts) / median_s,
            "tokens_per_s": None if num_tokens is None else num_tokens / median_s,
            "peak_memory_mb": None if peak_memory is None else peak_memory / _MIB,
            **sizes(encoder),
            "dimension": dimension,
        }
        return TaskResult(
            task=self.name,
            protocol=f"batch of {self.batch_size}, median of {self.num_passes} passes, {describe(device, encoder)}",
            main="sentences_per_s",
            higher_is_better=True,
            data_sha256=hash_rows([texts]),
            scores=[Score("mean", metric, value, len(texts)) for metric, value in values.items()],
            details={"seconds": seconds, "num_tokens": num_tokens},
        )


def sizes(encoder: Encoder) -> dict[str, float | None]:
    """Parameters, those that are no token embeddings, and the weights in MiB; None for what is no torch module."""
    if not isinstance(encoder, torch.nn.Module):
        return dict.fromkeys(("weights_mb", "parameters", "parameters_without_embeddings"))
    parameters = list(encoder.parameters())
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    total = sum(parameter.numel() for parameter in parameters)
    embeddings = getattr(getattr(encoder, "backbone", None), "get_input_embeddings", lambda: None)()
    without = None if embeddings is None else total - embeddings.weight.numel()
    return {"weights_mb": num_bytes / _MIB, "parameters": total, "parameters_without_embeddings": without}


def count_tokens(encoder: Encoder, texts: Sequence[str]) -> int | None:
    """Tokens that the encoder reads, special tokens included and after truncation; None where it has no tokenizer."""
    tokenize: Callable[[Sequence[str]], Sequence[Sequence[int]]] | None = getattr(encoder, "tokenize", None)
    return None if tokenize is None else sum(len(row) for row in tokenize(texts))


def device_of(encoder: Encoder) -> torch.device:
    """Where the encoder's first parameter lies; the CPU for what has none."""
    if isinstance(encoder, torch.nn.Module):
        for parameter in encoder.parameters():
            return parameter.device
    return torch.device("cpu")


def describe(device: torch.device, encoder: Encoder) -> str:
    """The processor, its threads and the precision: what a speed must be quoted with."""
    precision = str(getattr(encoder, "precision", None) or torch.float32).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"{cpu_model()}, {torch.get_num_threads()} threads, {precision}"


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds until `run` and what it left to the device are done."""
    _wait_for(device)
    start = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - start


def peak_bytes(run: Callable[[], None], device: torch.device) -> int | None:
    """Most memory that `run` held at once beyond what was held before; None where it cannot be measured."""
    if device.type == "cuda":
        _wait_for(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        _wait_for(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATM.exists():
        run()
        return None
    before = peak = _resident_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_POLL_S):
            peak = max(peak, _resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(peak, _resident_bytes()) - before


def _resident_bytes() -> int:
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _embedded(language: str) -> list[str]:
    from mlkd.demo_data import LANGUAGES, everyday_texts

    check_embedded(language, ("en", *LANGUAGES))
    return everyday_texts(language)
