"""Masked language modelling beside distillation, from the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mlkd.training.run import train

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def with_mask(toy: Any, tmp_path: Path) -> str:
    """A model folder whose tokenizer is the toy's and knows a mask token."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(toy.teacher, tmp_path / "with-mask")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(folder)
    return f"student.tokenizer='{folder}'"


def test_a_vocabulary_without_a_mask_token_is_refused(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code, _, err = mlkd("train", *toy.unscored.command(tmp_path, "loss.delta=0.1", f"cache_dir='{cache}'"))
    assert code == 4
    assert "error[E420]: student: masked language modelling needs a mask token" in err
    assert "set loss.delta=0" in err
    assert not cache.exists(), "refused before the teacher encodes anything"


@pytest.mark.parametrize("sparse", ["true", "false"])
def test_it_is_logged_kept_with_the_state_and_left_out_of_the_student(
    toy: Any, tmp_path: Path, read_lines: Callable[[Path], list[dict[str, Any]]], with_mask: str, sparse: str
) -> None:
    more = [
        "loss.delta=0.1",
        f"optim.sparse_embeddings={sparse}",
        "optim.max_steps=10",
        "hardware.gradient_caching=true",
    ]
    folder = train(toy.unscored.config(tmp_path, *more, with_mask), tmp_path / "run")
    lines = [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss/feature"] + line["loss/masked_lm"])
        assert line["loss/masked_lm"] == pytest.approx(0.1 * line["raw/masked_lm"])
        assert line["gradient_share/feature"] + line["gradient_share/masked_lm"] == pytest.approx(1)
        assert 0 < line["gradient_share/masked_lm"] < 1
    assert lines[-1]["raw/masked_lm"] < lines[0]["raw/masked_lm"]
    state = load_file(folder / "checkpoints/step-00000010/masked_lm.safetensors")
    assert state["bias_V"].abs().max() > 0
    student = load_file(folder / "student/model.safetensors")
    assert not {name for name in student if "bias_V" in name or name.startswith(("dense", "norm"))}
