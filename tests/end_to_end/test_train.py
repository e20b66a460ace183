"""Training from files to results: what is written, what is learnt, and that it is the same every time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mlkd.errors import MlkdError
from mlkd.models.serialization import load_encoder
from mlkd.runtime.checkpoints import load_latest
from mlkd.training.run import train
from mlkd.training.trainer import Trainer

Reader = Callable[[Path], list[dict[str, Any]]]
SENTENCES = ["the cat sees the moon", "ein hund malt wasser", "mi tia compra cinco arboles", "unknown words"]


def losses(lines: Sequence[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if line["kind"] == "train"]


def scores(lines: Sequence[dict[str, Any]]) -> dict[int, float]:
    return {line["step"]: line["tatoeba_file/mean/accuracy"] for line in lines if line["kind"] == "eval"}


def test_run_folder_holds_what_is_promised(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml", "overrides.yaml", "environment.json", "status.json", "data.json", "train.log", "metrics.jsonl",
        "timing.jsonl",
        "student", "checkpoints", "eval", "results.json", "item_scores.safetensors", "results.md", "report.html",
        "results.csv", "results.tex",
    }  # fmt: skip
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"step-00000015", "step-00000020"}
    assert {"student.json", "untrained.json", "teacher.json"} <= {path.name for path in (trained / "eval").iterdir()}
    assert json.loads((trained / "status.json").read_text())["state"] == "finished"
    assert "max_steps: 20" in (trained / "config.yaml").read_text()
    assert "optim.max_steps=20" in (trained / "overrides.yaml").read_text()
    assert json.loads((trained / "data.json").read_text())["languages"]["de"]["read"] == 61
    assert "step 20/20" in (trained / "train.log").read_text()
    assert "tatoeba_file" in (trained / "report.html").read_text(encoding="utf-8")


def test_it_learns(trained: Path, read_lines: Reader) -> None:
    lines = read_lines(trained / "metrics.jsonl")
    values = losses(lines)
    assert len(values) == 20
    assert sum(values[-3:]) < 0.2 * sum(values[:3])
    found = scores(lines)
    assert list(found) == [0, 5, 10, 15, 20]
    assert max(found.values()) > found[0] + 30
    assert all(line["gradient_share/feature"] == 1.0 for line in lines if line["kind"] == "train")


def test_results_are_those_of_the_loop(trained: Path, read_lines: Reader) -> None:
    found = scores(read_lines(trained / "metrics.jsonl"))
    results = json.loads((trained / "results.json").read_text())
    assert set(results["describe"]) == {"student", "untrained", "teacher"}

    def mean(system: str) -> float:
        entries = json.loads((trained / f"eval/{system}.json").read_text())
        return next(s["value"] for s in entries[0]["scores"] if (s["language"], s["metric"]) == ("mean", "accuracy"))

    assert mean("student") == max(found.values())
    assert mean("untrained") == found[0]
    assert f"{mean('student'):.1f}" in (trained / "results.md").read_text()
    best_step = max(found, key=lambda step: (found[step], -step))
    assert f"(step {best_step} of 20)" in (trained / "student/README.md").read_text()


def test_student_is_the_same_elsewhere(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    folder = str(trained / "student")
    ours = load_encoder(folder).encode(SENTENCES)
    assert torch.allclose(ours.norm(dim=1), torch.ones(len(SENTENCES)))
    theirs = SentenceTransformer(folder, device="cpu").encode(SENTENCES, convert_to_tensor=True)
    assert (ours - theirs).abs().max() < 1e-5
    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder, add_pooling_layer=False)(
            tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )[0]
    mask = tokens["attention_mask"].unsqueeze(2)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    assert (ours - torch.nn.functional.normalize(mean, dim=1)).abs().max() < 1e-5


def test_same_seed_same_run_other_seed_other_run(toy: Any, trained: Path, tmp_path: Path) -> None:
    def content(folder: Path) -> tuple[bytes, bytes, bytes]:
        checkpoint = folder / "checkpoints/step-00000020"
        files = (folder / "metrics.jsonl", checkpoint / "student.safetensors", checkpoint / "optimizer.safetensors")
        return tuple(file.read_bytes() for file in files)

    again = train(toy.config(tmp_path), tmp_path / "again")
    assert content(again) == content(trained)
    other = train(toy.config(tmp_path, "seed=2"), tmp_path / "other")
    assert all(a != b for a, b in zip(content(other), content(trained), strict=True))


def final_weights(toy: Any, folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    train(toy.unscored.config(folder.parent, *overrides), folder)
    checkpoint = load_latest(folder / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors["student"]


def test_accumulated_batches_equal_a_large_one(toy: Any, tmp_path: Path) -> None:
    common = ["optim.schedule=constant", "optim.warmup_ratio=null", "optim.max_steps=4", "optim.clip_norm=null"]
    common.append("data.max_pairs_per_language=48")  # batches of 8 and of 16 without rest
    one = final_weights(toy, tmp_path / "one", *common, "optim.batch_size=16")
    two = final_weights(toy, tmp_path / "two", *common, "optim.batch_size=8", "optim.accumulation_steps=2")
    less = final_weights(toy, tmp_path / "less", *common, "optim.batch_size=8")
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], rtol=1e-3, atol=1e-4), name
    assert any((weight - less[name]).abs().max() > 1e-2 for name, weight in one.items())


def test_forward_chunks_change_nothing_but_rounding(toy: Any, tmp_path: Path) -> None:
    large = final_weights(toy, tmp_path / "large", "optim.max_steps=3")
    small = final_weights(toy, tmp_path / "small", "optim.max_steps=3", "hardware.max_tokens=40")
    for name, weight in large.items():
        assert torch.allclose(weight, small[name], rtol=1e-3, atol=1e-4), name


def test_run_without_tasks_keeps_its_last_student(toy: Any, tmp_path: Path) -> None:
    weights = final_weights(toy, tmp_path / "run", "optim.max_steps=7", "evaluation.every_steps=3")
    saved = load_file(tmp_path / "run/student/model.safetensors")
    for name, weight in saved.items():
        assert torch.equal(weight, weights[f"backbone.{name}"])


def test_bf16(toy: Any, tmp_path: Path, read_lines: Reader) -> None:
    folder = train(toy.config(tmp_path, "hardware=cpu_bf16", "optim.max_steps=10"), tmp_path / "run")
    values = losses(read_lines(folder / "metrics.jsonl"))
    assert values[-1] < 0.5 * values[0]
    assert load_file(folder / "student/model.safetensors")["embeddings.word_embeddings.weight"].dtype == torch.float32


def test_early_stopping(toy: Any, tmp_path: Path, read_lines: Reader) -> None:
    config = toy.config(tmp_path, "optim.lr=1e-12", "evaluation.patience=2")
    folder = train(config, tmp_path / "run")
    assert list(scores(read_lines(folder / "metrics.jsonl"))) == [0, 5, 10, 15]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert json.loads((folder / "checkpoints/step-00000015/state.json").read_text())["best_step"] == 5


def test_lealla_mix_with_projection(toy: Any, tmp_path: Path, read_lines: Reader) -> None:
    config = toy.config(tmp_path, "loss=lealla", "student.hidden_size=24", "student.pooling=cls", "optim.max_steps=10")
    folder = train(config, tmp_path / "run")
    lines = read_lines(folder / "metrics.jsonl")
    line = next(line for line in lines if line["kind"] == "train")
    terms = ("ranking", "feature", "similarity")
    assert line["loss"] == pytest.approx(sum(line[f"loss/{term}"] for term in terms), rel=1e-5)
    weights = (1.0, 1e3, 1e-2)
    for term, weight in zip(terms, weights, strict=True):
        assert line[f"loss/{term}"] == pytest.approx(weight * line[f"raw/{term}"], rel=1e-5)
    assert sum(line[f"gradient_share/{term}"] for term in terms) == pytest.approx(1.0)
    assert losses(lines)[-1] < losses(lines)[0]
    checkpoint = load_latest(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.tensors["loss"]["trained.feature.projection.weight"].shape == (16, 24)
    assert {path.name for path in (folder / "student").iterdir() if path.is_dir()} <= {"1_Pooling", "2_Normalize"}
    assert load_encoder(str(folder)).encode(SENTENCES).shape == (4, 24)


def test_learning_rate_follows_its_schedule(toy: Any, tmp_path: Path, read_lines: Reader) -> None:
    expected = {"constant": [0.5, 1, 1, 1, 1], "linear": [0.5, 1, 1, 2 / 3, 1 / 3], "cosine": [0.5, 1, 1, 0.75, 0.25]}
    for schedule, rates in expected.items():
        overrides = [f"optim.schedule={schedule}", "optim.warmup_ratio=null", "optim.warmup_steps=2"]
        config = toy.unscored.config(tmp_path, *overrides, "optim.max_steps=5")
        lines = read_lines(train(config, tmp_path / schedule) / "metrics.jsonl")
        found = [line["lr"] / 0.01 for line in lines if line["kind"] == "train"]
        assert found == pytest.approx(rates), schedule


def inject_nan(monkeypatch: pytest.MonkeyPatch, steps: Sequence[int]) -> None:
    """Make the loss of these steps (counted from 0) not finite."""
    forward = Trainer.forward

    def broken(self: Trainer, rows: Any) -> Any:
        values, *rest = forward(self, rows)
        if self.state.step in steps:
            values = dataclasses.replace(values, total=values.total * float("nan"))
        return values, *rest

    monkeypatch.setattr(Trainer, "forward", broken)


def test_one_nan_is_skipped(toy: Any, tmp_path: Path, read_lines: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    inject_nan(monkeypatch, [6, 7])
    folder = train(toy.config(tmp_path, "optim.max_steps=10"), tmp_path / "run")
    values = losses(read_lines(folder / "metrics.jsonl"))
    assert [n for n, value in enumerate(values) if value is None] == [6, 7]
    assert values[9] < values[0]
    assert (folder / "train.log").read_text().count("skipped, weights unchanged") == 2
    assert all(torch.isfinite(w).all() for w in load_file(folder / "student/model.safetensors").values())


def test_three_nans_end_the_run(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject_nan(monkeypatch, [6, 7, 8])
    with pytest.raises(MlkdError, match=r"E601.*3 steps in a row") as caught:
        train(toy.config(tmp_path), tmp_path / "run")
    assert caught.value.exit_code == 6
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], "E601" in status["error"]) == ("failed", True)
    checkpoint = load_latest(tmp_path / "run/checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 5
    assert all(torch.isfinite(w).all() for w in checkpoint.tensors["student"].values())


def test_vocabulary_larger_than_the_text(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match=r"E405.*at most \d+") as caught:
        train(toy.config(tmp_path, "student.tokenizer=''"), tmp_path / "run")
    assert caught.value.exit_code == 4


def test_metric_that_no_task_gives(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match=r"E209.*tatoeba_file/mean/acuracy.*Did you mean 'tatoeba_file/mean/accuracy'"):
        train(toy.config(tmp_path, "evaluation.metric=tatoeba_file/mean/acuracy"), tmp_path / "run")
