"""Packed passes hold every sentence once, cost less than padded ones, and give the same vectors and gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlkd.models import sentence_encoder
from mlkd.models.adapters import Adapters, has_adapter
from mlkd.models.hidden_states import UpToLayer
from mlkd.models.packing import ForwardPass, fill_rows, first_position_id, pack, plan_forward_passes
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder, TextSettings, autocast

MakeEncoder = Callable[..., SentenceEncoder]
PAD = 1
SHAPE: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 70, "pad_token_id": PAD, "initializer_range": 0.3,
}  # fmt: skip
DISTILBERT: dict[str, Any] = {
    "vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 70,
    "pad_token_id": PAD, "initializer_range": 0.3,
}  # fmt: skip
KINDS = ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "MPNet", "DistilBert")
LENGTHS = [24, 3, 11, 9, 5, 5, 2, 17, 8, 8, 13, 4]


class Tokenizer:
    """What a SentenceEncoder asks of one here."""

    pad_token_id = PAD


def build_body(kind: str, **changes: Any) -> Any:
    """A tiny transformer of a kind, without dropout unless `changes` say so, its positions far from each other."""
    import transformers

    shape = dict(DISTILBERT if kind == "DistilBert" else SHAPE)
    off = ("dropout", "attention_dropout") if kind == "DistilBert" else ("hidden_dropout_prob",)
    shape |= dict.fromkeys(off, 0.0) | ({} if kind == "DistilBert" else {"attention_probs_dropout_prob": 0.0})
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**shape | changes)
    return getattr(transformers, f"{kind}Model")(config)


def build_encoder(backbone: Any, pooling: Pooling = Pooling.mean) -> SentenceEncoder:
    return SentenceEncoder(backbone, Tokenizer(), pooling=pooling, text=TextSettings(max_length=64))


def token_rows(lengths: list[int]) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    generator = np.random.default_rng(5)
    return [generator.integers(3, 50, size=length).astype(np.int32) for length in lengths]


def one_by_one(encoder: SentenceEncoder, rows: list[Any]) -> Tensor:
    """Each sentence in a pass of its own, through transformers as anyone would call it."""
    return torch.cat([encoder(torch.tensor(r[None].tolist()), torch.ones(1, len(r))) for r in rows])


def packed_calls(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass from here on is packed."""
    calls: list[bool] = []
    forward = SentenceEncoder.forward

    def watched(
        self: SentenceEncoder, ids: Tensor, mask: Tensor, pre_projection: bool = False, packing: Any = None
    ) -> Tensor:
        calls.append(packing is not None)
        return forward(self, ids, mask, pre_projection, packing)

    monkeypatch.setattr(SentenceEncoder, "forward", watched)
    return calls


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 400), st.sampled_from([None, 16, 128, 768]))
def test_passes_hold_every_sentence_once_within_the_budget(
    lengths: list[int], max_tokens: int, hidden: int | None
) -> None:
    passes = plan_forward_passes(lengths, max_tokens, hidden)
    assert sorted(i for planned in passes for i in planned.order) == list(range(len(lengths)))
    for planned in passes:
        assert all(row and sum(lengths[i] for i in row) <= planned.width for row in planned.rows)
        assert len(planned.rows) == 1 or len(planned.rows) * planned.width <= max_tokens
    firsts = [max(lengths[i] for i in planned.order) for planned in passes]
    assert firsts == sorted(firsts, reverse=True)
    if hidden is None:
        assert not any(planned.is_packed for planned in passes)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_packing_is_chosen_where_it_costs_less(lengths: list[int]) -> None:
    packed, padded = plan_forward_passes(lengths, 512, 128), plan_forward_passes(lengths, 512, None)
    costs = [sum(planned.cost(128) for planned in passes) for passes in (packed, padded)]
    if any(planned.is_packed for planned in packed):
        assert costs[0] < 0.95 * costs[1]
    else:
        assert packed == padded


def test_sentences_of_one_length_are_not_packed() -> None:
    assert plan_forward_passes([12] * 100, 600, 128) == plan_forward_passes([12] * 100, 600, None)


def test_hardly_a_position_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 25, size=128).tolist()
    passes = plan_forward_passes(lengths, 2048, 128)
    assert sum(lengths) / sum(len(planned.rows) * planned.width for planned in passes) > 0.95


def test_cost_by_hand() -> None:
    assert ForwardPass([[0], [1, 2]], 8).cost(4) == 2 * 8 * 1.5


def test_best_fit_by_hand() -> None:
    histogram = [0, 1, 1, 2, 0, 1]  # 5, 3, 3, 2, 1
    assert fill_rows(histogram, width=6, max_rows=9) == [[5, 1], [3, 3], [2]]
    assert fill_rows(histogram, width=6, max_rows=1) == [[5, 1]]
    assert fill_rows(histogram, width=14, max_rows=1) == [[5, 3, 3, 2, 1]]


def test_layout_by_hand() -> None:
    rows = [np.array(r, np.int32) for r in ([7, 8], [5], [9, 10, 11])]
    ids, mask, packing = pack(rows, ForwardPass([[2, 1], [0]], 5), pad_id=0, first=2)
    assert ids.tolist() == [[9, 10, 11, 5, 0], [7, 8, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert packing.position_ids_RW.tolist() == [[2, 3, 4, 2, 2], [2, 3, 2, 2, 2]]
    assert packing.sentence_ids_RW.tolist() == [[0, 0, 0, 1, -1], [2, 2, -1, -1, -1]]
    assert packing.token_positions_NL.tolist() == [[0, 1, 2], [3, 0, 0], [5, 6, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_gradients_are_those_of_single_sentences(
    kind: str, pooling: Pooling, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = build_body(kind).double()
    backbone.set_attn_implementation("eager" if kind == "MPNet" else attention)
    encoder = build_encoder(backbone, pooling).train()
    rows = token_rows(LENGTHS)
    expected = one_by_one(encoder, rows)
    weight_ND = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * weight_ND).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    calls = packed_calls(encoder, monkeypatch)
    found = encoder.forward_tokens(rows, 60)
    (found * weight_ND).sum().backward()  # type: ignore[no-untyped-call]
    assert len(calls) > 1 and any(calls)
    assert (expected[1:] - expected[:-1]).abs().amax() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found_gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    assert found_gradients["embeddings.position_embeddings.weight"].abs().max() > 0.1
    torch.testing.assert_close(found_gradients, gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_as_near_to_fp32_as_padded_bf16_is(kind: str) -> None:
    encoder = build_encoder(build_body(kind)).eval()
    encoder.backbone.set_attn_implementation("eager")  # type: ignore[operator]
    rows = token_rows(LENGTHS)
    with torch.no_grad():
        exact = one_by_one(encoder, rows)
        with autocast(torch.device("cpu"), torch.bfloat16):
            packed, padded = encoder.forward_tokens(rows, 600), one_by_one(encoder, rows)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(packed, padded).min() > 0.9999
    assert cosine(packed, exact).min() > cosine(padded, exact).min() - 1e-4


def test_a_kind_that_cannot_be_packed_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_body("Bert")
    assert first_position_id(backbone, PAD) == 0
    assert first_position_id(build_body("XLMRoberta"), PAD) == first_position_id(build_body("MPNet"), PAD) == PAD + 1
    assert first_position_id(build_body("XLMRoberta"), 0) is None  # its positions would depend on which tokens are 1
    assert first_position_id(UpToLayer(backbone, 1), PAD) is None
    monkeypatch.setattr(type(backbone), "__module__", "transformers_modules.some_model.modeling")
    assert first_position_id(backbone, PAD) is None
    calls, rows = packed_calls(build_encoder(backbone), monkeypatch), token_rows(LENGTHS)
    found = build_encoder(backbone).eval().forward_tokens(rows, 600)
    assert calls == [False]
    torch.testing.assert_close(found, one_by_one(build_encoder(backbone).eval(), rows), rtol=0, atol=1e-5)
    backbone.config.model_type = "modernbert"
    assert first_position_id(backbone, PAD) is None


def test_a_sentence_of_no_tokens_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(build_body("Bert")).eval()
    calls = packed_calls(encoder, monkeypatch)
    vectors = encoder.forward_tokens(token_rows([9, 0, 3, 2]), 600)
    assert calls == [False] and torch.equal(vectors[1], torch.zeros(16))


@pytest.mark.parametrize("caching", [False, True])
def test_caching_gives_the_same_gradients_of_packed_passes_under_dropout(*, caching: bool) -> None:
    gradients = []
    for cached in (False, caching):
        encoder = build_encoder(build_body("Bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)).train()
        torch.manual_seed(8)
        vectors = encoder.forward_tokens(token_rows(LENGTHS), 60, caching=cached)
        (vectors @ vectors.T).square().mean().backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad for p in encoder.backbone.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_an_adapter_is_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    backbone = build_body("XLMRoberta")
    backbone.requires_grad_(False)
    Adapters(enabled=True, rank=2, modules=["query", "value"]).attach(backbone, "tiny")
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    encoder, rows = build_encoder(backbone).train(), token_rows(LENGTHS)
    expected = one_by_one(encoder, rows)
    calls = packed_calls(encoder, monkeypatch)
    assert has_adapter(backbone)
    torch.testing.assert_close(encoder.forward_tokens(rows, 600), expected, rtol=0, atol=1e-5)
    assert calls == [True]


def test_a_student_steps_alike_packed_and_padded(
    make_encoder: MakeEncoder, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    for packed in (True, False):
        encoder = make_encoder(normalize=True).eval()  # no dropout, whose draws would differ
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
        rows = encoder.tokenize(sentences)
        plan = (
            plan_forward_passes
            if packed
            else (lambda lengths, max_tokens, _: plan_forward_passes(lengths, max_tokens, None))
        )
        monkeypatch.setattr(sentence_encoder, "plan_forward_passes", plan)
        run = []
        for _ in range(10):
            vectors = encoder.forward_tokens(rows, 400)
            loss = (vectors @ vectors.T).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            run.append(float(loss.detach()))
        losses.append(run)
    assert all(a != b for a, b in pairwise(losses[0]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
