"""Every option of `loss` takes steps on real batches, and what it adds to a student or teacher is what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mlkd.config.paths import CONFIG_DIR
from mlkd.errors import MlkdError
from mlkd.losses.mix import LossMix
from mlkd.models.serialization import load_encoder, save_encoder
from mlkd.training.preflight import run_preflight
from mlkd.training.run import train
from mlkd.training.setup import TrainingSetup, set_up

LOSSES = sorted(path.stem for path in (CONFIG_DIR / "loss").glob("*.yaml"))
TERMS = {"ranking": "alpha", "feature": "beta", "similarity": "gamma", "masked_lm": "delta"}
SENTENCES = ["the cat sees the moon", "ein hund malt wasser", "mi tia compra cinco arboles"]


def setup(toy: Any, output: Path, *overrides: str) -> tuple[LossMix, TrainingSetup]:
    config = toy.unscored.config(output, *overrides)
    return config.loss, set_up(config, run_preflight(config))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_steps(toy: Any, tmp_path: Path, name: str) -> None:
    masking = load_encoder(str(toy.teacher))
    masking.tokenizer.mask_token = "<unk>"  # the toy's own tokenizer has none
    save_encoder(masking, tmp_path / "masking")
    student = ("student.dropout=0.1", f"student.tokenizer='{tmp_path}/masking'")
    mix, run = setup(toy, tmp_path, f"loss={name}", *student)
    weights = [p for p in run.trainer.student.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in weights]
    for _ in range(3):
        values, shares, _ = run.trainer.step(with_shares=True)
        assert torch.isfinite(values.total)
    assert set(values.raw) == {term for term, weight in TERMS.items() if getattr(mix, weight) > 0}
    assert shares is not None and sum(shares.values()) == pytest.approx(1.0)
    assert run.trainer.state.skipped == 0
    assert sum(not torch.equal(a, b) for a, b in zip(before, weights, strict=True)) > len(weights) / 2


def test_distillation_first_is_kept_at_inference(toy: Any, tmp_path: Path) -> None:
    # The student's vectors have 8 dimensions, before them come the teacher's 16.
    size = ("loss=ams_fd_first", "student.hidden_size=12", "student.dense_dim=8", "optim.max_steps=5")
    run = train(toy.unscored.config(tmp_path, *size), tmp_path / "run", [])
    student = load_encoder(str(run / "student"))
    assert [(d.linear.in_features, d.linear.out_features) for d in student.denses] == [(12, 16), (16, 8)]
    checkpoint = load_file(run / "checkpoints/step-00000005/student.safetensors")
    assert torch.equal(checkpoint["denses.0.linear.weight"], student.denses[0].linear.weight)
    assert student.encode(SENTENCES).shape == (3, 8)


def test_layers_are_added_or_take_the_place_of_the_last(toy: Any) -> None:
    def sizes() -> list[tuple[int, int]]:
        return [(d.linear.in_features, d.linear.out_features) for d in student.denses]

    student = load_encoder(str(toy.teacher))
    student.add_pre_projection(5, replaces_last=False)
    assert sizes() == [(16, 5), (5, 16)]
    student.add_pre_projection(7, replaces_last=True)
    assert sizes() == [(16, 5), (5, 7), (7, 16)]
    student.add_pre_projection(9, replaces_last=False)  # after what a pretrained encoder brings
    assert sizes() == [(16, 5), (5, 7), (7, 16), (16, 9), (9, 16)]
    rows = student.tokenize(SENTENCES)
    narrow, both = student.forward_tokens(rows, 64), student.forward_tokens(rows, 64, pre_projection=True)
    assert both.shape == (3, 16 + 9)
    assert torch.equal(both[:, :16], narrow)
    output = torch.nn.functional.normalize(student.denses[-1](both[:, 16:]), dim=1)
    assert torch.allclose(output, narrow, atol=1e-6)


@pytest.mark.parametrize("method", ["dense", "pca"])
def test_a_synchronized_teacher_has_the_students_dimension(toy: Any, tmp_path: Path, method: str) -> None:
    small = (
        "loss=ams_fd_synchronized",
        "student.dense_dim=8",
        f"teacher.reduction.method={method}",
        "teacher.reduction.steps=20",
        "optim.max_steps=5",
        "task=[mse_file]",
        f"task.mse_file.path='{toy.root}/dev/en-{{language}}.tsv'",
        "task.mse_file.languages=[de,es]",
    )
    run = train(toy.unscored.config(tmp_path, *small), tmp_path / "run", [])
    assert load_encoder(str(run / "student")).dimension == 8
    described = json.loads((run / "results.json").read_text())["describe"]
    assert (described["teacher"]["dimension"], described["student"]["dimension"]) == (8, 8)


def test_a_teacher_of_any_lower_dimension(toy: Any, tmp_path: Path) -> None:
    smaller = ("loss=mse", "teacher.reduction.dim=6", "teacher.reduction.method=pca", "student.dense_dim=6")
    _, run = setup(toy, tmp_path, *smaller)
    assert run.teacher.encode(SENTENCES).shape == (3, 6)
    assert run.trainer.data.targets.dimension == 6
    values, _, _ = run.trainer.step()
    assert torch.isfinite(values.total)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss=mse", "student.dense_dim=8"], "teacher.reduction.dim=8"),
        (["loss=mse", "teacher.reduction.dim=17"], "teacher.reduction.dim: must be at most"),
        (["loss=mse", "teacher.reduction.dim=8"], "teacher dim 8 != student dim 16"),
        (["loss=ams_fd_synchronized", "student.dense_dim=20"], "teacher dim 16 != student dim 20"),
    ],
)
def test_dimensions_that_do_not_fit(toy: Any, tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        run_preflight(toy.unscored.config(tmp_path, *overrides))
    assert {p.code for p in caught.value.problems} == {"E210"}
    assert words in str(caught.value)


def test_dropout_passes_need_dropout(toy: Any, tmp_path: Path, read_lines: Callable[..., Any]) -> None:
    with pytest.raises(MlkdError) as caught:
        toy.unscored.config(tmp_path, "loss=simcse")
    assert [(p.code, p.where) for p in caught.value.problems] == [("E209", "student.dropout")]
    _, run = setup(toy, tmp_path, "loss=simcse", "student.dropout=0.2")
    batch = run.trainer.next_batch()
    run.trainer.gather_rows(batch.tokens)
    _, vectors = run.trainer.forward(batch)
    assert (vectors.student_source_BD - vectors.student_source_second_pass_BD).abs().max() > 1e-4


def test_a_term_that_moves_nothing_is_warned_of(toy: Any, tmp_path: Path) -> None:
    config = toy.unscored.config(tmp_path, "loss=lealla", "loss.beta=1", "optim.max_steps=8")
    run = train(config, tmp_path / "run", [])
    written = (run / "train.log").read_text()
    assert written.count("it hardly moves the student") == 1
    assert "the similarity term has" in written
