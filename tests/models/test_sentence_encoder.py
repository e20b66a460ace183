"""Batching by length changes no vector, and text is cut and cased as configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlkd.errors import MlkdError
from mlkd.models.encoder import Encoder
from mlkd.models.packing import length_sorted_chunks, pad
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder

MakeEncoder = Callable[..., SentenceEncoder]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 200))
def test_chunks_hold_every_index_once_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    chunks = list(length_sorted_chunks(lengths, max_tokens))
    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        assert chunk
        assert len(chunk) == 1 or len(chunk) * max(lengths[i] for i in chunk) <= max_tokens
    flat = [lengths[i] for chunk in chunks for i in chunk]
    assert flat == sorted(flat, reverse=True)


def test_padding() -> None:
    ids, mask = pad([np.array([5, 6, 7], np.int32), np.array([8], np.int32)], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype is mask.dtype is torch.int64


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("max_tokens", [1, 60, 100_000])
def test_vectors_come_in_order_whatever_the_budget(
    make_encoder: MakeEncoder, sentences: list[str], pooling: Pooling, max_tokens: int
) -> None:
    encoder = make_encoder(pooling)
    rows = encoder.tokenize(sentences)
    with torch.no_grad():
        together = encoder.forward_tokens(rows, max_tokens)
        one_by_one = torch.cat([encoder(torch.tensor([r.tolist()]), torch.ones(1, len(r))) for r in rows])
    assert (one_by_one[0] - one_by_one[1]).abs().max() > 0.01
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=2e-6)


def test_gradients_do_not_depend_on_the_budget(make_encoder: MakeEncoder, sentences: list[str]) -> None:
    gradients = []
    for max_tokens in (40, 100_000):
        encoder = make_encoder(normalize=True)
        vectors = encoder.forward_tokens(encoder.tokenize(sentences[:12]), max_tokens)
        (vectors @ vectors.T).square().mean().backward()
        gradients.append(encoder.backbone.get_input_embeddings().weight.grad)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_encode_is_an_encoder_without_dropout_or_gradients(make_encoder: MakeEncoder, sentences: list[str]) -> None:
    encoder = make_encoder(dense={"out_features": 5}, normalize=True)
    assert isinstance(encoder, Encoder)
    encoder.train()
    first, second = encoder.encode(sentences), encoder.encode(sentences)
    assert encoder.training
    assert torch.equal(first, second) and not first.requires_grad
    assert first.shape == (len(sentences), 5) == (len(sentences), encoder.dimension)
    assert first.dtype is torch.float32
    torch.testing.assert_close(first.norm(dim=1), torch.ones(len(sentences)))
    assert encoder.encode([]).shape == (0, 5)


def test_encoding_takes_fewer_tokens_at_a_time_where_memory_runs_out(
    make_encoder: MakeEncoder, sentences: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = make_encoder()
    expected = encoder.encode(sentences)
    forward, sizes, limit = SentenceEncoder.forward, [], 100

    def limited(self: SentenceEncoder, input_ids: Tensor, *args: Any) -> Tensor:
        sizes.append(input_ids.numel())
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError(f"no more than {limit} tokens fit")
        return forward(self, input_ids, *args)

    monkeypatch.setattr(SentenceEncoder, "forward", limited)
    encoder.encode_tokens = 400
    assert (encoder.encode(sentences) - expected).abs().max() < 1e-5
    assert encoder.encode_tokens == 100  # and stays there
    assert sum(size > 100 for size in sizes) == 2
    assert "out of device memory in encoding: retried with 100 token positions" in caplog.text
    limit = 1
    with pytest.raises(MlkdError, match=r"error\[E520\]: out of device memory in encoding"):
        encoder.encode(sentences)


def test_training_mode_returns_even_where_encoding_fails(
    make_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder().train()

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(SentenceEncoder, "forward", broken)
    with pytest.raises(RuntimeError, match="broken"):
        encoder.encode(["a"])
    assert encoder.training


def test_bf16_encoding_is_near_fp32_and_comes_as_fp32(make_encoder: MakeEncoder, sentences: list[str]) -> None:
    encoder = make_encoder(dense={"out_features": 5}, normalize=True)
    exact = encoder.encode(sentences)
    encoder.precision = torch.bfloat16
    rounded = encoder.encode(sentences)
    assert rounded.dtype is torch.float32
    assert 1e-5 < (rounded - exact).abs().max() < 0.1
    assert torch.nn.functional.cosine_similarity(rounded, exact).min() > 0.99


def test_text_is_cut_to_the_maximum_length(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(max_length=6)
    (row,) = encoder.tokenize(["l a b t w n a b"])
    tokenizer = encoder.tokenizer
    expected = ["[CLS]", "l", "a", "b", "t", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(row.tolist()) == expected
    assert row.dtype == np.int32
    assert encoder.tokenize([]) == []


@pytest.mark.parametrize("text", ["a </s> a<mask>", "</s>", "<pad><s></s>", "<unk>"])
def test_a_control_token_in_a_text_is_text_to_a_tokenizer_like_xlm_rs(make_encoder: MakeEncoder, text: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # As in XLM-R, control tokens are pieces with the best score of all.
    controls = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*((control, 0.0) for control in controls), *((piece, -9.0) for piece in "▁</>sapdmkun")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    names = dict(zip(["bos_token", "pad_token", "eos_token", "unk_token", "mask_token"], controls, strict=True))
    encoder = make_encoder()
    encoder.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    (row,) = encoder.tokenize([text])
    assert len(row) and not set(row.tolist()) & set(range(5))
    assert encoder.tokenizer.decode(row.tolist()).replace("▁", "").replace(" ", "") == text.replace(" ", "")


def test_a_control_token_in_a_text_is_text(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder()
    (row,) = encoder.tokenize(["a [SEP] b [MASK] [PAD] [CLS]"])
    tokenizer = encoder.tokenizer
    assert row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id
    assert not set(row[1:-1].tolist()) & {
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
        tokenizer.pad_token_id,
    }
