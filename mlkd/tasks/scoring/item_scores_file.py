"""Item scores in a safetensors file, so that a later comparison can pair what two evaluations scored item by item."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mlkd.errors import fail
from mlkd.runtime.atomic_files import replaced_file
from mlkd.tasks.scoring.item_scores import (
    CorrelationItemScores,
    F1ItemScores,
    Floats,
    ItemScores,
    MacroAverage,
    MeanItemScores,
)

FORMAT = 1


def write_item_scores(path: Path, item_scores: Mapping[str, Mapping[str, ItemScores]]) -> None:
    """Write groups of item scores (one group for each task's result), by `language/metric` in each."""
    tensors: dict[str, NDArray[Any]] = {}
    known: dict[int, dict[str, Any]] = {}
    described = {
        group: {key: _describe(items, tensors, known) for key, items in found.items()}
        for group, found in item_scores.items()
    }
    with replaced_file(path) as temporary:
        save_file(tensors, temporary, metadata={"format": str(FORMAT), "item_scores": json.dumps(described)})


def find_item_scores(path: Path) -> Path | None:
    """`path`, or the file under the name that earlier versions gave it; None where there is neither."""
    earlier = path.with_name(path.name.replace("item_scores.safetensors", "samples.safetensors"))
    return next((candidate for candidate in (path, earlier) if candidate.is_file()), None)


def read_item_scores(path: Path) -> dict[str, dict[str, ItemScores]]:
    """What `write_item_scores` wrote.

    Raises:
        MlkdError: E309 where `path` is no such file.
    """
    try:
        with safe_open(path, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            described = json.loads(metadata["samples" if "samples" in metadata else "item_scores"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (it is no dict)
        known: dict[str, ItemScores] = {}
        return {
            group: {key: _build(entry, tensors, known) for key, entry in found.items()}
            for group, found in described.items()
        }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise fail("E309", f"no file of item scores: {type(error).__name__} {error}", where=str(path)) from error


def _describe(items: ItemScores, tensors: dict[str, NDArray[Any]], known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What to build `items` from; their arrays go to `tensors`, once for those that a mean has as a part."""
    if id(items) in known:
        return known[id(items)]
    if isinstance(items, MacroAverage):
        return {"kind": "means", "parts": [_describe(part, tensors, known) for part in items.parts]}
    name = str(len(known))
    entry: dict[str, Any] = {"tensor": name}
    known[id(items)] = entry
    if isinstance(items, MeanItemScores):
        entry |= {"kind": "mean", "scale": items.scale}
        tensors[name] = _small(items.values_N)
    elif isinstance(items, F1ItemScores):
        entry |= {"kind": "f1"}
        tensors[name] = _small(items.counts_N3)
    elif isinstance(items, CorrelationItemScores):
        entry |= {"kind": "correlation", "rank": items.rank}
        tensors[name] = _small(np.stack([items.predicted_N, items.gold_N], axis=1))
    else:
        raise AssertionError(f"{type(items).__name__} has no stored form")
    return entry


def _build(entry: dict[str, Any], tensors: dict[str, NDArray[Any]], known: dict[str, ItemScores]) -> ItemScores:
    if entry["kind"] == "means":
        return MacroAverage([_build(part, tensors, known) for part in entry["parts"]])
    name = entry["tensor"]
    if name not in known:
        values = tensors[name].astype(np.float64)
        if entry["kind"] == "mean":
            known[name] = MeanItemScores(values, entry["scale"])
        elif entry["kind"] == "f1":
            known[name] = F1ItemScores(*values.T)
        else:
            known[name] = CorrelationItemScores(values[:, 0], values[:, 1], entry["rank"])
    return known[name]


def _small(values: Floats) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them exactly."""
    for dtype in (np.uint8, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            smaller = values.astype(dtype)
        if np.array_equal(smaller.astype(np.float64), values):
            return np.ascontiguousarray(smaller)
    return np.ascontiguousarray(values)
