"""Parts of a run folder for its report: every one that can be read, and the names of those that cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlkd.errors import fail
from mlkd.report.results import Results, read_results

PARTS = {
    "results.json": "no scores",
    "metrics.jsonl": "no curves",
    "eval/projection.json": "no picture of the sentences",
    "config.yaml": "no configuration",
    "data.json": "no counts of the data",
    "environment.json": "no environment",
    "status.json": "no status",
}
# An evaluation has these two; any other part makes a folder a run's, of which all are expected.
EVALUATION_PARTS = ("results.json", "environment.json")


@dataclass(kw_only=True, slots=True)
class RunParts:
    """The parts of one run folder; a part that is missing or unreadable is empty and has a line in `missing`."""

    path: Path
    results: Results | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    projection: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The experiment: the innermost folder whose name is not a time or the number of a job."""
        named = [name for name in self.path.parts[:0:-1] if not name[0].isdigit()]
        return named[0] if named else self.path.name

    @property
    def place(self) -> str:
        """The path from the experiment's folder on, e.g. `small/2026-01-31_12-00-00`."""
        parts = self.path.parts
        return "/".join(parts[len(parts) - 1 - parts[::-1].index(self.title) :])


def read_parts(folder: Path) -> RunParts:
    """Read all parts.

    Raises:
        MlkdError: E301 where there is neither results.json nor metrics.jsonl, E309 where one of these is broken.
    """
    if not (folder / "results.json").is_file() and not (folder / "metrics.jsonl").is_file():
        remedy = "name a folder written by mlkd-train or mlkd-eval"
        raise fail("E301", f"'{folder}' has neither results.json nor metrics.jsonl", remedy=remedy)
    run = RunParts(path=folder.resolve())
    if any((folder / part).is_file() for part in PARTS if part not in EVALUATION_PARTS):
        run.missing = [f"{part} is not in this folder: {effect}" for part, effect in PARTS.items()
                       if not (folder / part).is_file()]  # fmt: skip
    if (folder / "results.json").is_file():
        run.results = read_results(folder / "results.json")
    if (folder / "metrics.jsonl").is_file():
        run.metrics = _read_metrics(folder / "metrics.jsonl", run.missing)
    run.projection = _read_json(folder, "eval/projection.json", run.missing)
    run.data = _read_json(folder, "data.json", run.missing)
    run.environment = _read_json(folder, "environment.json", run.missing)
    run.status = _read_json(folder, "status.json", run.missing)
    if (folder / "config.yaml").is_file():
        run.config_text = (folder / "config.yaml").read_text(encoding="utf-8")
    return run


def _read_metrics(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise fail("E309", f"not JSON ({error})", where=f"{path}:{number}") from None
            missing.append("the last line of metrics.jsonl was cut off while it was written, and is left out")
    return found


def _read_json(folder: Path, part: str, missing: list[str]) -> dict[str, Any]:
    path = folder / part
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        missing.append(f"{part} is not JSON ({error}): {PARTS[part]}")
        return {}
    if not isinstance(found, dict):
        missing.append(f"{part} does not hold named values: {PARTS[part]}")
        return {}
    return found
