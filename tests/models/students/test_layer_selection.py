"""Layers are chosen in every kind of backbone we claim, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.serialization import load_encoder, load_transformer, save_encoder
from mlkd.models.students.base import StudentCorpus
from mlkd.models.students.layer_selection import LAYER_LISTS, check_layers, layer_problems, select_layers, set_dropout
from mlkd.models.students.pretrained import PretrainedStudent

SHAPE = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 12}


def make(kind: str) -> Any:
    """A backbone of four layers with weights large enough to tell them apart."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(1)
    backbone = AutoModel.from_config(AutoConfig.for_model(kind, **SHAPE, max_position_embeddings=20, pad_token_id=1))
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.normal_()
    return backbone.eval()


@pytest.mark.parametrize("kind", LAYER_LISTS)
def test_chosen_layers_alone_are_computed(kind: str) -> None:
    backbone, cut = make(kind), make(kind)
    select_layers(cut, [0, 3])
    check_layers(cut.config.to_dict(), [1], "cut")
    with pytest.raises(MlkdError, match="must be below 2"):
        check_layers(cut.config.to_dict(), [2], "cut")
    stack = getattr(backbone, LAYER_LISTS[kind]).layer
    for layer in (stack[1], stack[2]):  # computed as if they were not there
        layer.forward = lambda hidden, *args, **kwargs: hidden if kind != "mpnet" else (hidden,)
    ids = torch.tensor([[5, 6, 7], [8, 9, 1]])
    mask = (ids != 1).long()
    with torch.no_grad():
        expected = backbone(input_ids=ids, attention_mask=mask)[0]
        actual = cut(input_ids=ids, attention_mask=mask)[0]
    torch.testing.assert_close(actual, expected)


def test_a_student_of_some_layers_survives_its_folder(
    tiny_xlmr: Path, student_corpus: StudentCorpus, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    student = PretrainedStudent(model=str(tiny_xlmr), keep_layers=[0, 2])
    student.check_files()
    encoder = student.build(student_corpus, normalize=True, seed=1).eval()
    teacher: Any = load_transformer(tiny_xlmr)[0]
    for mine, number in zip(encoder.backbone.encoder.layer, [0, 2], strict=True):  # type: ignore[union-attr, arg-type]
        theirs = teacher.encoder.layer[number].state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())
    save_encoder(encoder, tmp_path / "student")
    expected = encoder.encode(sentences)
    torch.testing.assert_close(load_encoder(str(tmp_path / "student")).encode(sentences), expected, rtol=0, atol=1e-6)
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True), expected, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "student" / "config.json").read_text())["num_hidden_layers"] == 2


def test_layers_that_are_not_there(tiny_xlmr: Path) -> None:
    with pytest.raises(MlkdError) as caught:
        PretrainedStudent(model=str(tiny_xlmr), keep_layers=[0, 3]).check_files()
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E204", "student.keep_layers")
    assert "must be below 3" in problem.what and "[0, 3]" in problem.what


def test_other_kinds_are_refused() -> None:
    with pytest.raises(MlkdError, match=r"E407.*'m' is of type 't5'") as caught:
        check_layers({"model_type": "t5", "num_hidden_layers": 6}, [0], "m")
    assert "student.keep_layers=null" in caught.value.problems[0].remedy


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [-1, 0]])
def test_layers_must_rise(layers: list[int]) -> None:
    (problem,) = layer_problems(layers)
    assert (problem.code, problem.where) == ("E204", "keep_layers") and str(layers) in problem.what
    assert layer_problems([0, 2, 5]) == []


def test_set_dropout_reaches_what_attention_reads_at_run_time() -> None:
    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout = 0.3
            self.dropout_prob = 0  # an integer in some configurations
            self.inner = torch.nn.Dropout(0.2)

    attention = Attention()
    set_dropout(torch.nn.Sequential(attention, torch.nn.Dropout(0.5)), 0.1)
    assert (attention.attention_dropout, attention.dropout_prob, attention.inner.p) == (0.1, 0.1, 0.1)
