"""Baselines of other layers, and prompts: equal to transformers' hidden states and to sentence-transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder, save_encoder

MakeEncoder = Callable[..., SentenceEncoder]


@pytest.fixture(scope="session")
def tiny_xlmr(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain XLM-R folder of three layers under the tiny tokenizer."""
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    torch.manual_seed(11)
    backbone = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, hidden_size=16, num_hidden_layers=3,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=64, initializer_range=0.3,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny-xlmr"
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_xlmr"])
def test_a_layer_is_the_hidden_states_of_that_number_pooled(
    request: pytest.FixtureRequest, sentences: list[str], model: str, pooling: Pooling
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = request.getfixturevalue(model)
    backbone, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    depth = backbone.config.num_hidden_layers
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        states = backbone.eval()(**batch, output_hidden_states=True).hidden_states
    assert len(states) == depth + 1
    for layer in range(-depth - 1, depth + 1):
        tokens = states[layer]
        rows = [t[m == 1] for t, m in zip(tokens, batch["attention_mask"], strict=True)]
        by_hand = {"mean": lambda t: t.mean(dim=0), "cls": lambda t: t[0], "max": lambda t: t.amax(dim=0)}
        expected = torch.stack([by_hand[pooling.name](t) for t in rows])
        found = load_encoder(str(folder), layer=layer, pooling=pooling, max_length=24).encode(sentences)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    last = load_encoder(str(folder), pooling=pooling, max_length=24).encode(sentences)
    torch.testing.assert_close(last, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("layer", [3, -4, 12])
def test_a_layer_that_is_not_there(tiny_bert: Path, layer: int) -> None:
    with pytest.raises(MlkdError, match=rf"E204.*layer: must be in -3\.\.2.*\(got {layer}\)"):
        load_encoder(str(tiny_bert), layer=layer)


def test_a_dense_layer_belongs_to_the_last_layer(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    save_encoder(make_encoder(dense={"out_features": 5}), tmp_path / "saved")
    with pytest.raises(MlkdError, match="E209"):
        load_encoder(str(tmp_path / "saved"), layer=1)


def with_prompts(folder: Path, target: Path, **settings: object) -> Path:
    shutil.copytree(folder, target)
    path = target / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return target


def test_prompts_are_those_of_sentence_transformers(
    make_encoder: MakeEncoder, sentences: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(make_encoder(), tmp_path / "plain")
    prompts = {"query": "Schei: ", "passage": "ткр: "}
    named = with_prompts(tmp_path / "plain", tmp_path / "e5", prompts=prompts, default_prompt_name="query")
    unused = with_prompts(tmp_path / "plain", tmp_path / "no-default", prompts=prompts)
    peer = SentenceTransformer(str(named), device="cpu")
    for prompt, arguments in ((None, {}), ("", {"prompt": ""}), ("ткр: ", {"prompt_name": "passage"})):
        expected = peer.encode(sentences, convert_to_tensor=True, **arguments).cpu()
        torch.testing.assert_close(load_encoder(str(named), prompt=prompt).encode(sentences), expected)
    bare = make_encoder().encode(sentences)
    torch.testing.assert_close(load_encoder(str(unused)).encode(sentences), bare)
    assert (load_encoder(str(named)).encode(sentences) - bare).abs().max() > 0.01


def test_a_prompt_is_saved_with_the_model(make_encoder: MakeEncoder, sentences: list[str], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(make_encoder(), tmp_path / "plain")
    encoder = load_encoder(str(tmp_path / "plain"), prompt="query: ")
    save_encoder(encoder, tmp_path / "with")
    expected = encoder.encode(sentences)
    torch.testing.assert_close(load_encoder(str(tmp_path / "with")).encode(sentences), expected)
    peer = SentenceTransformer(str(tmp_path / "with"), device="cpu")
    torch.testing.assert_close(peer.encode(sentences, convert_to_tensor=True).cpu(), expected, rtol=0, atol=1e-5)


def test_pooling_without_the_prompt_is_refused_where_there_is_one(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    save_encoder(make_encoder(), tmp_path / "instructor")
    path = tmp_path / "instructor/1_Pooling/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": False}))
    load_encoder(str(tmp_path / "instructor"))
    with pytest.raises(MlkdError, match="include_prompt"):
        load_encoder(str(tmp_path / "instructor"), prompt="query: ")
