"""One encoder as a configuration names it: paths, mappings, vectors, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.config.composition import build_config, compose_config
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.mine_schema import MineConfig
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.models.model_folder import folder_sha256
from mlkd.models.pooling import Pooling
from mlkd.models.precomputed import export_texts, vectors_sha256
from mlkd.models.serialization import load_encoder
from mlkd.models.spec import Dtype, EncoderSettings, EncoderSpec, ScoredEncoder
from mlkd.runtime.devices import Hardware
from mlkd.teacher.encoder import Teacher


def problems(entry: Any, **defaults: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        ScoredEncoder.parse(entry, **defaults)
    return [(p.code, p.where) for p in caught.value.problems]


def test_a_path_takes_the_settings_of_all() -> None:
    choice = ScoredEncoder.parse("outputs/a", pooling="cls", layer=3)
    assert (choice.model, choice.pooling, choice.layer, choice.label) == ("outputs/a", Pooling.cls, 3, "outputs/a")


def test_a_mapping_says_otherwise() -> None:
    choice = ScoredEncoder.parse({"model": "m", "layer": 8, "name": "mBERT"}, pooling="cls", layer=3)
    assert (choice.pooling, choice.layer, choice.label) == (Pooling.cls, 8, "mBERT")


def test_vectors_are_found_by_what_a_folder_holds(tmp_path: Path) -> None:
    export_texts(tmp_path / "v", ["a", "b"])
    np.save(tmp_path / "v/x.npy", np.eye(2, dtype=np.float32))
    for entry in (str(tmp_path / "v"), {"model": str(tmp_path / "v/x.npy")}, {"vectors": str(tmp_path / "v")}):
        choice = ScoredEncoder.parse(entry, pooling="cls", prompt="query: ")
        assert choice.vectors and not choice.model and choice.pooling is None
        assert choice.locate() == tmp_path / "v/x.npy"
        assert torch.equal(choice.open(Hardware(), torch.device("cpu")).encode(["b"]), torch.tensor([[0.0, 1.0]]))
        assert choice.describe() == {
            "path": str(tmp_path / "v/x.npy"),
            "sha256": vectors_sha256(tmp_path / "v/x.npy"),
        }


def test_a_model_with_its_settings(tiny_bert: Path, sentences: list[str]) -> None:
    choice = ScoredEncoder(model=str(tiny_bert), layer=1, pooling=Pooling.max, prompt="schei ", max_length=9)
    expected = load_encoder(str(tiny_bert), layer=1, pooling=Pooling.max, prompt="schei ", max_length=9)
    torch.testing.assert_close(choice.load().encode(sentences), expected.encode(sentences))
    assert choice.describe() == {
        "path": str(tiny_bert), "sha256": folder_sha256(tiny_bert),
        "pooling": "max", "layer": 1, "prompt": "schei ", "max_length": 9,
    }  # fmt: skip


def test_a_layer_is_checked_before_weights_are_read(tiny_bert: Path) -> None:
    with pytest.raises(MlkdError, match="E204"):
        ScoredEncoder(model=str(tiny_bert), layer=7).locate()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"model": "m", "pool": "cls"}, [("E201", "pool")]),
        ({"path": "m"}, [("E214", "path")]),
        ({"model": "m", "dtype": "half", "trust_remote_code": 1}, [("E203", "trust_remote_code")]),
        ({"model": "m", "dtype": "half"}, [("E204", "dtype")]),
        ({"layer": 3}, [("E205", "model")]),
        ({"model": "m", "vectors": "v"}, [("E209", "model")]),
        ({"model": "m", "layer": "eight"}, [("E203", "layer")]),
        ({"model": "m", "layer": True}, [("E203", "layer")]),
        ({"model": 3}, [("E203", "model")]),
        ({"model": "m", "pooling": "men", "max_length": 2}, [("E204", "pooling"), ("E204", "max_length")]),
        ({"vectors": "v", "layer": 3, "prompt": "x"}, [("E209", "layer"), ("E209", "prompt")]),
    ],
)
def test_mappings_that_say_nothing_clear(entry: Any, found: list[tuple[str, str]]) -> None:
    assert problems(entry) == found


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(MlkdError, match="Did you mean 'pooling'"):
        ScoredEncoder.parse({"model": "m", "poling": "cls"})
    with pytest.raises(MlkdError, match="Did you mean 'mean'"):
        ScoredEncoder.parse({"model": "m", "pooling": "meen"})


@pytest.mark.parametrize("dtype", [Dtype.bfloat16, Dtype.float16])
def test_weights_in_fewer_bits(tiny_bert: Path, sentences: list[str], dtype: Dtype) -> None:
    spec = EncoderSpec(model=str(tiny_bert), dtype=dtype)
    # A precision of the hardware would turn the numbers into another format once more: the specification decides.
    encoder = spec.load_on(torch.device("cpu"), torch.bfloat16, 64)
    assert {p.dtype for p in encoder.backbone.parameters()} == {getattr(torch, dtype.value)}
    assert encoder.precision is None
    vectors = encoder.encode(sentences)
    expected = EncoderSpec(model=str(tiny_bert)).load().encode(sentences)
    assert vectors.dtype == torch.float32
    assert not torch.equal(vectors, expected)
    torch.testing.assert_close(vectors, expected, atol=0.05, rtol=0.05)


def test_whatever_changes_vectors_changes_the_fingerprint() -> None:
    specs = [
        EncoderSpec(), EncoderSpec(pooling=Pooling.cls), EncoderSpec(layer=1), EncoderSpec(prompt="query: "),
        EncoderSpec(max_length=9), EncoderSpec(dtype=Dtype.float16),
    ]  # fmt: skip
    names = [spec.fingerprint("0", None) for spec in specs]
    names += [specs[0].fingerprint("1", None), specs[0].fingerprint("0", torch.bfloat16)]
    assert len(set(names)) == 8
    changed = {name for spec in specs for name, value in spec.settings().items() if value}
    assert changed == {f.name for f in dataclasses.fields(EncoderSettings)} - {"revision", "trust_remote_code"}


def test_one_vocabulary_for_all_encoders() -> None:
    settings = {f.name for f in dataclasses.fields(EncoderSettings)}
    for schema in (Teacher, ScoredEncoder, EvaluateConfig, MineConfig):
        assert settings <= {f.name for f in dataclasses.fields(schema)}


@pytest.mark.parametrize("setting", ["layer=0", "prompt='schei '", "dtype=bfloat16", "max_length=4", "pooling=max"])
def test_the_teacher_is_opened_with_its_settings(tiny_bert: Path, sentences: list[str], setting: str) -> None:
    overrides = ["teacher=folder", f"teacher.model={tiny_bert}", f"teacher.{setting}"]
    teacher = build_config(compose_config("train", overrides), TrainConfig).teacher
    plain = load_encoder(str(tiny_bert))
    found = teacher.load_on(torch.device("cpu"), None, 64).encode(sentences)
    assert found.shape == plain.encode(sentences).shape and not torch.equal(found, plain.encode(sentences))
