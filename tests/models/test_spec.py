"""One encoder as a configuration names it: paths, mappings, vectors, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.precomputed import export_texts, vectors_sha256
from mlkd.models.serialization import folder_sha256, load_encoder
from mlkd.models.spec import EncoderChoice


def problems(entry: Any, **defaults: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        EncoderChoice.parse(entry, **defaults)
    return [(p.code, p.where) for p in caught.value.problems]


def test_a_path_takes_the_settings_of_all() -> None:
    choice = EncoderChoice.parse("outputs/a", pooling="cls", layer=3)
    assert (choice.path, choice.pooling, choice.layer, choice.label) == ("outputs/a", "cls", 3, "outputs/a")


def test_a_mapping_says_otherwise() -> None:
    choice = EncoderChoice.parse({"path": "m", "layer": 8, "name": "mBERT"}, pooling="cls", layer=3)
    assert (choice.pooling, choice.layer, choice.label) == ("cls", 8, "mBERT")


def test_vectors_are_found_by_what_a_folder_holds(tmp_path: Path) -> None:
    export_texts(tmp_path / "v", ["a", "b"])
    np.save(tmp_path / "v/x.npy", np.eye(2, dtype=np.float32))
    for entry in (str(tmp_path / "v"), {"path": str(tmp_path / "v/x.npy")}, {"vectors": str(tmp_path / "v")}):
        choice = EncoderChoice.parse(entry, pooling="cls", prompt="query: ")
        assert choice.vectors and not choice.path and choice.pooling is None
        assert choice.locate() == tmp_path / "v/x.npy"
        assert torch.equal(choice.load().encode(["b"]), torch.tensor([[0.0, 1.0]]))
        assert choice.describe() == {"path": str(tmp_path / "v/x.npy"), "sha256": vectors_sha256(tmp_path / "v/x.npy")}


def test_a_model_with_its_settings(tiny_bert: Path, sentences: list[str]) -> None:
    choice = EncoderChoice(path=str(tiny_bert), layer=1, pooling="max", prompt="schei ", max_length=9)
    expected = load_encoder(str(tiny_bert), layer=1, pooling=Pooling.max, prompt="schei ", max_length=9)
    torch.testing.assert_close(choice.load().encode(sentences), expected.encode(sentences))
    assert choice.describe() == {
        "path": str(tiny_bert), "sha256": folder_sha256(tiny_bert),
        "pooling": "max", "layer": 1, "prompt": "schei ", "max_length": 9,
    }  # fmt: skip


def test_a_layer_is_checked_before_weights_are_read(tiny_bert: Path) -> None:
    with pytest.raises(MlkdError, match="E204"):
        EncoderChoice(path=str(tiny_bert), layer=7).locate()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"path": "m", "pool": "cls"}, [("E201", "pool")]),
        ({"layer": 3}, [("E205", "path")]),
        ({"path": "m", "vectors": "v"}, [("E209", "path")]),
        ({"path": "m", "layer": "eight"}, [("E203", "layer")]),
        ({"path": "m", "layer": True}, [("E203", "layer")]),
        ({"path": 3}, [("E203", "path")]),
        ({"path": "m", "pooling": "men", "max_length": 2}, [("E204", "pooling"), ("E204", "max_length")]),
        ({"vectors": "v", "layer": 3, "prompt": "x"}, [("E209", "layer"), ("E209", "prompt")]),
    ],
)
def test_mappings_that_say_nothing_clear(entry: Any, found: list[tuple[str, str]]) -> None:
    assert problems(entry) == found


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(MlkdError, match="Did you mean 'pooling'"):
        EncoderChoice.parse({"path": "m", "poling": "cls"})
    with pytest.raises(MlkdError, match="Did you mean 'mean'"):
        EncoderChoice.parse({"path": "m", "pooling": "meen"})
