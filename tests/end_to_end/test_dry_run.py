"""A dry run finds what a run would find, prints what it would cost, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., tuple[int, str, str]]


def test_dry_run_prints_sizes_and_leaves_no_folder(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = mlkd("train", *toy.command(tmp_path / "out"), "dry_run=true")
    assert code == 0, err
    values = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    assert values["device"] == "cpu, torch.float32"
    assert values["dimension"] == "16"
    assert re.fullmatch(r"[\d,]+ \([\d,]+ without embeddings\)", values["parameters"])
    assert re.fullmatch(r"\d+ in 2 languages", values["pairs"])
    assert values["steps"] == "20 of 16 pairs"
    assert 0 < float(values["first loss"]) < 1
    assert re.fullmatch(r"[\d,]+ MiB", values["peak memory"])
    assert re.search(r"s a step, about [\d.]+ min", values["time"])
    assert list(tmp_path.iterdir()) == []


def test_dry_run_fails_as_the_run_would(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    code, _, err = mlkd("train", *toy.command(tmp_path), "dry_run=true", "student.hidden_size=32")
    assert code == 2
    assert "error[E210]: teacher dim 16 != student dim 32" in err
    code, _, err = mlkd("train", *toy.command(tmp_path), "dry_run=true", "student.tokenizer=''")
    assert code == 4
    assert "error[E405]" in err


def test_dry_run_beside_an_unfinished_run(mlkd: Call, toy: Any, trained: Path, tmp_path: Path) -> None:
    before = sorted(trained.parent.rglob("*"))
    code, _, _ = mlkd("train", *toy.command(trained.parent), f"hydra.run.dir={trained}", "dry_run=true")
    assert code == 0
    assert sorted(trained.parent.rglob("*")) == before
