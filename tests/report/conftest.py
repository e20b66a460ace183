"""A small run folder with every part a report can show."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlkd.report.html import write_report
from mlkd.report.plots.projection import project, write_projection
from mlkd.report.results import Results, write_results
from mlkd.tasks.scoring.bootstrap import Comparison
from mlkd.tasks.scoring.scores import Score, TaskResult

SNAPSHOTS = Path(__file__).parent / "snapshots"
EVIL = "<script>alert('x')</script> & \"more\""
SYSTEMS = ["student", "untrained", "teacher"]


def assert_snapshot(name: str, text: str) -> None:
    """`text` is what snapshots/<name> holds; MLKD_UPDATE_SNAPSHOTS=1 writes it there, for git diff to show."""
    path = SNAPSHOTS / name
    # A line for each row, so that a difference is one of few lines.
    lines = text.replace("<tr", "\n<tr").replace("</tbody>", "\n</tbody>").strip() + "\n"
    if os.environ.get("MLKD_UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    assert lines == path.read_text(encoding="utf-8"), f"MLKD_UPDATE_SNAPSHOTS=1 updates {path}"


def tatoeba(de: float | None, fr: float | None, mean: float | None) -> TaskResult:
    scores = [
        Score("mean", "accuracy", mean, 2000),
        Score("de", "accuracy", de, 1000),
        Score("fr", "accuracy", fr, 1000),
        Score("de", "xx->en", 10.0, 1000),
    ]
    intervals = {"de/accuracy": [60.0, 66.04]} if de == 63.14 else {}
    return TaskResult("tatoeba", "laser", "accuracy", True, "ab" * 32, scores, {"intervals": intervals})


def bucc(f1: float) -> TaskResult:
    mining = {"de-en": {"threshold": 1.1, "edges": [0.8, 1.0, 1.2, 1.4], "true": [0, 3, 9], "false": [50, 8, 1]}}
    scores = [Score("de-en", "f1", f1, 12), Score("mean", "f1", f1, 12)]
    return TaskResult("bucc", "oracle, laser, k=4", "f1", True, "cd" * 32, scores, {"mining": mining})


def mse(value: float) -> TaskResult:
    scores = [Score("de", "mse", value, 500), Score("mean", "mse", value, 500)]
    return TaskResult("mse", "x100", "mse", False, "ef" * 32, scores)


def make_results() -> Results:
    return Results(
        systems=SYSTEMS,
        results={
            "student": [tatoeba(63.14, 70.0, 66.57), bucc(55.5), mse(0.1234)],
            "untrained": [tatoeba(1.0, None, None), bucc(0.0), mse(0.9)],
            "teacher": [tatoeba(41.0, 70.04, 55.52), bucc(20.0)],
        },
        describe={
            "student": {"parameters": 4_210_000, "dimension": 384, "sha256": "0f" * 32},
            "teacher": {"path": "/somewhere/mini", "parameters": 22_700_000, "dimension": 384},
        },
    )


def with_tests(results: Results) -> Results:
    """The same with paired tests of student and teacher."""
    tests = [
        compared("tatoeba", "mean", "student", "teacher", 11.05, p_value=0.0002),
        compared("bucc", "mean", "student", "teacher", 35.5, p_value=0.21),
        compared("bucc", "de-en", "student", "teacher", 35.5, p_value=0.21),
    ]
    return replace(results, comparisons=tests)


def compared(task: str, language: str, first: str, second: str, difference: float, *, p_value: float) -> Comparison:
    """A paired test whose interval reaches 10 to either side."""
    known = {"tatoeba": ("laser", "ab" * 32, "accuracy"), "bucc": ("oracle, laser, k=4", "cd" * 32, "f1")}
    protocol, data_sha256, metric = known[task]
    bounds = (difference - 10, difference + 10)
    return Comparison(
        task, protocol, data_sha256, language, metric, first, second, difference, *bounds, p_value, p_value
    )


def efficiency(parameters: float | None, sentences_per_s: float) -> TaskResult:
    values = {
        "sentences_per_s": sentences_per_s,
        "parameters": parameters,
        "parameters_without_embeddings": None if parameters is None else parameters / 2,
    }
    scores = [Score("mean", metric, value, 500) for metric, value in values.items()]
    return TaskResult("efficiency", "some CPU", "sentences_per_s", True, "99" * 32, scores)


def make_checkpoints() -> Results:
    """Three checkpoints of long names, the third without bucc, their sizes measured."""
    names = ["outputs/small/2026-01-31_12-00-00", "somebody/<b>", "somebody/long_name_" + 40 * "x"]
    return Results(
        systems=names,
        results={
            names[0]: [tatoeba(63.14, 70.0, 66.57), bucc(55.5), efficiency(1e6, 900.0)],
            names[1]: [tatoeba(61.0, 70.04, 65.52), bucc(20.0), efficiency(2e7, 90.0)],
            names[2]: [tatoeba(1.0, None, None), efficiency(None, 40.0)],
        },
        describe={name: {"sha256": f"{i}f" * 32, "dimension": 384} for i, name in enumerate(names)},
        comparisons=[
            compared("tatoeba", "mean", names[0], names[1], 1.05, p_value=0.3),
            compared("tatoeba", "de", names[1], names[0], -2.14, p_value=0.04),
            compared("tatoeba", "fr", names[0], names[1], -0.04, p_value=0.9),
            compared("bucc", "mean", names[0], names[1], 35.5, p_value=0.0001),
        ],
    )


@pytest.fixture
def results() -> Results:
    return make_results()


@pytest.fixture
def tested() -> Results:
    return with_tests(make_results())


@pytest.fixture
def checkpoints() -> Results:
    return make_checkpoints()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the full run folder, for tests that change nothing."""
    return write_report(make_run_folder(tmp_path_factory.mktemp("report"))).read_text(encoding="utf-8")


def make_run_folder(parent: Path) -> Path:
    folder = parent / "small" / "2026-01-31_12-00-00"
    folder.mkdir(parents=True)
    write_results(folder / "results.json", with_tests(make_results()))
    lines = [
        {"step": s, "kind": "train", "loss": 3 / s + 1, "loss/feature": 1 / s, "loss/ranking": 2 / s + 1, "lr": 1e-3,
         "gradient_share/feature": 0.4, "gradient_share/ranking": 0.6}
        for s in range(1, 400)
    ]  # fmt: skip
    lines += [
        {"step": s, "kind": "eval", "tatoeba/de/accuracy": s / 8, "tatoeba/mean/accuracy": s / 7} for s in (200, 400)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    generator = torch.Generator().manual_seed(0)
    vectors = {name: torch.randn(8, 5, generator=generator) for name in ("en", "de", "ja")}
    texts = {name: [f"{EVIL} {name} {i}" for i in range(8)] for name in vectors}
    write_projection(folder / "eval" / "projection.json", project(vectors, texts, vectors))
    (folder / "config.yaml").write_text(f"seed: 1\nnote: {EVIL}\n")
    languages = {"de": {"read": 1200, "train": 1000, "dev": 100, "dropped": {"empty": 60, "too_long": 40, "none": 0}}}
    (folder / "data.json").write_text(json.dumps({"languages": languages}))
    (folder / "environment.json").write_text(json.dumps({"versions": {"torch": "2.13.0"}, "device": EVIL}))
    (folder / "status.json").write_text(json.dumps({"state": "interrupted", "step": 400, "max_steps": 900}))
    return folder
