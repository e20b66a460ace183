"""What is hidden, and what the head's cross-entropy is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mlkd.models.masked_lm as module
from mlkd.errors import MlkdError
from mlkd.losses.masked_lm import MaskedLmTerm
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder, TokenIds
from mlkd.models.sparse_embedding import use_sparse_embedding

NUM_PIECES = 200  # more than the tiny BERT has: masking alone is tested with them


class Tokenizer:
    """Special tokens 0 to 4 as BERT's: padding, unknown, start, end, mask."""

    unk_token_id, all_special_ids = 1, [0, 1, 2, 3, 4]

    def __init__(self, mask_token_id: int | None = 4) -> None:
        self.mask_token_id = mask_token_id


def masker(share: float = 0.15, seed: int = 1, mask_token_id: int | None = 4) -> MaskedLm:
    student: Any = type("Student", (), {})()
    student.tokenizer = Tokenizer(mask_token_id)
    student.backbone = type("Body", (), {"config": type("Config", (), {"hidden_size": 6})})
    return MaskedLm(MaskedLmTerm(mask_share=share), student, num_pieces=NUM_PIECES, embedding_dim=5, seed=seed)


def rows_of(count: int, *, length: int = 12) -> list[TokenIds]:
    generator = np.random.default_rng(0)
    return [np.array([2, *generator.integers(5, NUM_PIECES, length), 3], dtype=np.int32) for _ in range(count)]


def test_shares_of_masked_random_and_kept_tokens() -> None:
    rows = rows_of(2000)
    found = masker().mask(rows, batch=0)
    assert found.num_chosen == round(0.15 * 12 * 2000)
    before = np.concatenate([row[places] for row, places in zip(rows, found.places, strict=True)])
    after = np.concatenate([row[places] for row, places in zip(found.rows, found.places, strict=True)])
    assert np.array_equal(np.concatenate(found.labels), before)
    assert (after == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (after == before).mean() == pytest.approx(0.1 + 0.1 / 195, abs=0.02)
    random = after[(after != 4) & (after != before)]
    assert random.min() >= 5  # never a control token
    assert len(np.unique(random)) > 150
    assert len(np.unique(np.concatenate(found.places))) == 12  # every position but start and end
    for row, masked, places in zip(rows, found.rows, found.places, strict=True):
        untouched = np.delete(np.arange(len(row)), places)
        assert np.array_equal(masked[untouched], row[untouched])
        assert not {0, 13} & set(places.tolist())


def test_the_choice_is_a_function_of_seed_and_batch() -> None:
    rows = rows_of(5)
    copies = copy.deepcopy(rows)

    def chosen(seed: int, batch: int) -> list[list[int]]:
        return [places.tolist() for places in masker(seed=seed).mask(rows, batch).places]

    assert chosen(1, 7) == chosen(1, 7)
    assert chosen(1, 7) != chosen(1, 8)
    assert chosen(1, 7) != chosen(2, 7)
    assert all(np.array_equal(a, b) for a, b in zip(rows, copies, strict=True))


def test_at_least_one_token_and_unknown_ones_too() -> None:
    found = masker(share=0.01).mask([np.array([2, 1, 3], dtype=np.int32)], batch=0)
    assert [places.tolist() for places in found.places] == [[1]]
    assert found.labels[0].tolist() == [1]


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    with pytest.raises(MlkdError, match=r"error\[E420\].*needs a mask token"):
        masker(mask_token_id=None)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("logits", [2**24, 300])
def test_cross_entropy_and_gradient_of_the_whole_vocabulary(
    make_encoder: Callable[..., SentenceEncoder],
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    sparse: bool,
    caching: bool,
    logits: int,
) -> None:
    """Candidates a reference in one pass over the padded batch, with the embedding matrix as the last layer."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", logits)
    student = make_encoder().double()
    plain = copy.deepcopy(student)
    embedding = use_sparse_embedding(student)
    torch.manual_seed(0)
    sizes = {"num_pieces": embedding.num_embeddings, "embedding_dim": embedding.embedding_dim}
    masked_lm = MaskedLm(MaskedLmTerm(), student, **sizes, seed=1).double()
    rows = student.tokenize(sentences)
    embedding.gather_all(sparse=sparse)
    loss = masked_lm(student, embedding, rows, batch=3, max_tokens=90, caching=caching)
    loss.backward()

    found = masked_lm.mask(rows, batch=3)
    ids = torch.full((len(rows), max(map(len, rows))), student.pad_id)
    labels = torch.full_like(ids, -100)
    for i, (row, places, label) in enumerate(zip(found.rows, found.places, found.labels, strict=True)):
        ids[i, : len(row)] = torch.from_numpy(row)
        labels[i, places] = torch.from_numpy(label).long()
    mask = torch.tensor([[n < len(row) for n in range(ids.shape[1])] for row in rows]).long()
    backbone: Any = plain.backbone
    weight = backbone.get_input_embeddings().weight
    head = copy.deepcopy(masked_lm)  # its own gradients are compared below
    head.zero_grad()
    states = head.norm(F.gelu(head.dense(backbone(input_ids=ids, attention_mask=mask)[0])))
    expected = F.cross_entropy((states @ weight.T + head.bias_V).flatten(0, 1), labels.flatten())
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradient = embedding.matrix.grad
    assert gradient is not None and (gradient.abs().sum(dim=1) > 0).all()  # of every piece
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-9, atol=1e-12)
    expected_gradients = dict(plain.named_parameters())
    for name, parameter in student.named_parameters():
        if "word_embeddings" not in name and parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected_gradients[name].grad, rtol=1e-9, atol=1e-12, msg=name)
    for name, parameter in masked_lm.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(head.named_parameters())[name].grad, rtol=1e-9, atol=1e-12)
