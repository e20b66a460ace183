"""Preflight resolves what a run needs, once, opens nothing, and tells all that is wrong together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.model_folder import folder_sha256
from mlkd.runtime.hashing import HASH_DIGITS
from mlkd.training.preflight import reduced_dimension, run_preflight


def test_what_is_resolved(toy: Any, tmp_path: Path) -> None:
    found = run_preflight(
        toy.config(tmp_path, "hardware.device=cpu", "hardware.precision=bf16", "hardware.max_tokens=99")
    )
    assert (found.device, found.precision, found.teacher_precision) == (torch.device("cpu"), torch.bfloat16, None)
    assert found.max_tokens == 99
    assert found.teacher.folder == toy.teacher
    assert found.teacher.sha256 == folder_sha256(toy.teacher)
    assert (found.teacher.own_dimension, found.teacher.reduced_dimension, found.teacher.dimension) == (16, None, 16)
    assert [task.name for task, _ in found.evaluations.loaded] == ["tatoeba_file"]
    assert list(tmp_path.iterdir()) == []


def test_a_reduced_teacher_is_named_by_its_dimension(toy: Any, tmp_path: Path) -> None:
    mse = [
        "task=[mse_file]",
        f"task.mse_file.path='{toy.root}/dev/en-{{language}}.tsv'",
        "task.mse_file.languages=[de]",
    ]
    reduced = ["teacher.reduction.dim=8", "teacher.reduction.method=pca", "student.dense_dim=8"]
    found = run_preflight(toy.unscored.config(tmp_path, *mse, *reduced))
    assert (found.teacher.own_dimension, found.teacher.reduced_dimension, found.teacher.dimension) == (16, 8, 8)
    assert found.evaluations.teacher == f"{folder_sha256(toy.teacher)[:HASH_DIGITS]} in 8 dimensions (pca)"


def test_all_problems_come_together(toy: Any, tmp_path: Path) -> None:
    config = toy.config(
        tmp_path, "teacher.model=./no_teacher", "student.tokenizer=./no_tokenizer", "data.path='./no-{language}.tsv'"
    )
    with pytest.raises(MlkdError) as caught:
        run_preflight(config)
    assert {(p.code, p.where) for p in caught.value.problems} >= {("E401", "teacher"), ("E401", "student")}
    assert any("no-de.tsv" in str(p) for p in caught.value.problems)
    assert any("no-es.tsv" in str(p) for p in caught.value.problems)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.reduction.dim=17", "must be at most the teacher's dimension 16 (got 17)"),
        ("student.dense_dim=8", "teacher dim 16 != student dim 8"),
    ],
)
def test_dimensions_that_do_not_fit(toy: Any, tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        run_preflight(toy.config(tmp_path, override))
    assert caught.value.problems[0].code == "E210"
    assert words in str(caught.value)


def test_neither_weights_nor_training_text_are_opened(toy: Any, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(toy.teacher, tmp_path / "teacher"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "en-de.tsv").write_bytes(b"\xff\xfe no text")
    files = [f"data.path='{tmp_path}/en-{{language}}.tsv'", "data.languages=[de]"]
    assert run_preflight(toy.config(tmp_path, f"teacher.model='{broken}'", *files)).teacher.folder == broken


@pytest.mark.parametrize(("wanted", "expected"), [(None, None), (16, None), (20, None), (8, 8)])
def test_reduced_dimension(wanted: int | None, expected: int | None) -> None:
    assert reduced_dimension(wanted, 16) == expected
