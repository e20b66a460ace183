"""Samples in a safetensors file, so that a later comparison can pair what two evaluations scored item by item."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mlkd.errors import fail
from mlkd.tasks.scoring.item_scores import CorrelationSample, F1Sample, Floats, MeanOfSamples, MeanSample, Sample

FORMAT = 1


def write_samples(path: Path, samples: Mapping[str, Mapping[str, Sample]]) -> None:
    """Write groups of samples (one group for each task's result), by `language/metric` in each."""
    tensors: dict[str, NDArray[Any]] = {}
    known: dict[int, dict[str, Any]] = {}
    described = {
        group: {key: _describe(sample, tensors, known) for key, sample in found.items()}
        for group, found in samples.items()
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"format": str(FORMAT), "samples": json.dumps(described)})
    temporary.chmod(0o644)  # safetensors creates files that only their owner can read
    temporary.replace(path)


def read_samples(path: Path) -> dict[str, dict[str, Sample]]:
    """What `write_samples` wrote.

    Raises:
        MlkdError: E309 where `path` is no such file.
    """
    try:
        with safe_open(path, framework="numpy") as stored:
            described = json.loads(stored.metadata()["samples"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (it is no dict)
        known: dict[str, Sample] = {}
        return {
            group: {key: _build(entry, tensors, known) for key, entry in found.items()}
            for group, found in described.items()
        }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise fail("E309", f"no file of samples: {type(error).__name__} {error}", where=str(path)) from error


def _describe(sample: Sample, tensors: dict[str, NDArray[Any]], known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What to build `sample` from; its arrays go to `tensors`, once for a sample that a mean has as a part."""
    if id(sample) in known:
        return known[id(sample)]
    if isinstance(sample, MeanOfSamples):
        return {"kind": "means", "parts": [_describe(part, tensors, known) for part in sample.parts]}
    name = str(len(known))
    entry: dict[str, Any] = {"tensor": name}
    known[id(sample)] = entry
    if isinstance(sample, MeanSample):
        entry |= {"kind": "mean", "scale": sample.scale}
        tensors[name] = _small(sample.values_N)
    elif isinstance(sample, F1Sample):
        entry |= {"kind": "f1"}
        tensors[name] = _small(sample.counts_N3)
    elif isinstance(sample, CorrelationSample):
        entry |= {"kind": "correlation", "rank": sample.rank}
        tensors[name] = _small(np.stack([sample.predicted_N, sample.gold_N], axis=1))
    else:
        raise AssertionError(f"{type(sample).__name__} has no stored form")
    return entry


def _build(entry: dict[str, Any], tensors: dict[str, NDArray[Any]], known: dict[str, Sample]) -> Sample:
    if entry["kind"] == "means":
        return MeanOfSamples([_build(part, tensors, known) for part in entry["parts"]])
    name = entry["tensor"]
    if name not in known:
        values = tensors[name].astype(np.float64)
        if entry["kind"] == "mean":
            known[name] = MeanSample(values, entry["scale"])
        elif entry["kind"] == "f1":
            known[name] = F1Sample(*values.T)
        else:
            known[name] = CorrelationSample(values[:, 0], values[:, 1], entry["rank"])
    return known[name]


def _small(values: Floats) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them exactly."""
    for dtype in (np.uint8, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            smaller = values.astype(dtype)
        if np.array_equal(smaller.astype(np.float64), values):
            return np.ascontiguousarray(smaller)
    return np.ascontiguousarray(values)
