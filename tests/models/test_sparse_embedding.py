"""An embedding read through the rows of a batch is the same embedding, and its row-wise optimiser is AdamW."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.pooling import Pooling
from mlkd.models.sparse_embedding import SparseEmbedding, use_sparse_embedding
from mlkd.optim.optimizer import Optim
from mlkd.optim.sparse_adamw import SparseAdamW, coalesce

NUM_PIECES, HIDDEN = 11, 4
BETAS, EPS = (0.9, 0.98), 1e-8


def make(padding_idx: int | None = None) -> tuple[nn.Embedding, SparseEmbedding]:
    """A plain embedding and a SparseEmbedding of the same weights."""
    torch.manual_seed(0)
    plain = nn.Embedding(NUM_PIECES, HIDDEN, padding_idx=padding_idx)
    copy = nn.Embedding(NUM_PIECES, HIDDEN, padding_idx=padding_idx)
    copy.load_state_dict(plain.state_dict())
    return plain, SparseEmbedding(copy)


def weighted(output: Tensor) -> Tensor:
    """A scalar whose gradient differs at every position."""
    return (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum()


IDS = torch.tensor([[7, 2, 2, 0], [10, 7, 0, 0]])  # repeats, and padding


@pytest.mark.parametrize("gathered", [[0, 2, 7, 10], [0, 1, 2, 5, 7, 10], [10, 7, 2, 0]])
def test_gathered_rows_give_the_output_and_gradient_of_the_whole_table(gathered: list[int]) -> None:
    plain, rows = make()
    rows.gather(torch.tensor(gathered), sparse=False)
    assert torch.equal(rows(IDS), plain(IDS))
    weighted(rows(IDS)).backward()
    weighted(plain(IDS)).backward()
    torch.testing.assert_close(rows.weight.grad, plain.weight.grad, rtol=0, atol=1e-6)


def test_two_passes_over_the_gathered_rows_add_their_gradients() -> None:
    plain, rows = make()
    rows.gather(torch.tensor([0, 2, 7, 10]), sparse=False)
    for embedding in (rows, plain):
        (weighted(embedding(IDS[:1])) + weighted(embedding(IDS[1:]))).backward()
    torch.testing.assert_close(rows.weight.grad, plain.weight.grad, rtol=0, atol=1e-6)


def test_padding_gets_no_gradient_outside_a_batch() -> None:
    plain, rows = make(padding_idx=0)
    assert rows.padding_idx == 0
    weighted(rows(IDS)).backward()
    weighted(plain(IDS)).backward()
    assert plain.weight.grad is not None and plain.weight.grad[0].abs().max() == 0
    assert torch.equal(rows.weight.grad, plain.weight.grad)  # type: ignore[arg-type]


def test_padding_gets_no_gradient_in_a_batch() -> None:
    plain, rows = make(padding_idx=0)
    rows.gather(torch.tensor([0, 2, 7, 10]), sparse=False)
    weighted(rows(IDS)).backward()
    weighted(plain(IDS)).backward()
    torch.testing.assert_close(rows.weight.grad, plain.weight.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_an_encoder_gives_padding_no_gradient_of_its_own(make_encoder: Any, pooling: Pooling) -> None:
    encoder = make_encoder(pooling)
    embedding = use_sparse_embedding(encoder)
    rows = encoder.tokenize(["schei", "schei bel bel bel a"])
    embedding.gather(torch.arange(embedding.num_embeddings), sparse=True)
    weighted(encoder.forward_tokens(rows, 1000)).backward()
    assert embedding.table_RH is not None and embedding.table_RH.grad is not None
    assert embedding.table_RH.grad[encoder.pad_id].abs().max() == 0
    assert embedding.table_RH.grad[int(rows[0][1])].abs().max() > 0


def test_a_sparse_table_is_a_leaf_with_the_rows_of_the_dense_gradient() -> None:
    plain, rows = make()
    chosen = torch.tensor([0, 2, 5, 7, 10])
    rows.gather(chosen, sparse=True)
    table = rows.table_RH
    assert table is not None and table.is_leaf and table.shape == (5, HIDDEN)
    assert torch.equal(rows(IDS), plain(IDS))
    weighted(rows(IDS)).backward()
    weighted(plain(IDS)).backward()
    assert rows.weight.grad is None and plain.weight.grad is not None and table.grad is not None
    torch.testing.assert_close(table.grad, plain.weight.grad[chosen], rtol=0, atol=1e-6)
    assert table.grad[2].abs().max() == 0  # gathered, not read


def test_release_reads_the_whole_weight_again() -> None:
    plain, rows = make()
    everything = torch.arange(NUM_PIECES)
    rows.gather(torch.tensor([3, 4]), sparse=True)
    assert not torch.equal(rows(everything), plain(everything))
    rows.release()
    assert rows.rows_R is None and rows.table_RH is None
    assert torch.equal(rows(everything), plain(everything))
    rows.gather(torch.tensor([5, 9]), sparse=False)  # another batch, whose places differ
    assert torch.equal(rows(torch.tensor([9, 5])), plain(torch.tensor([9, 5])))


def test_the_weight_is_shared_and_the_state_is_that_of_an_embedding() -> None:
    torch.manual_seed(0)
    plain = nn.Embedding(NUM_PIECES, HIDDEN)
    rows = SparseEmbedding(plain)
    assert rows.weight.data_ptr() == plain.weight.data_ptr()
    assert list(rows.state_dict()) == ["weight"]


def gradients(steps: int, rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(rows, HIDDEN, generator=generator) for _ in range(steps)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_it_is_adamw_where_every_batch_holds_every_row(weight_decay: float, eps: float) -> None:
    torch.manual_seed(0)
    ours = torch.randn(NUM_PIECES, HIDDEN)
    theirs = nn.Parameter(ours.clone())
    sparse = SparseAdamW(ours, BETAS, eps, weight_decay)
    adamw = torch.optim.AdamW([theirs], betas=BETAS, eps=eps, weight_decay=weight_decay)
    shuffled = torch.randperm(NUM_PIECES)
    for step, gradient in enumerate(gradients(20, NUM_PIECES)):
        lr = 0.01 * (1 + step % 3)
        adamw.param_groups[0]["lr"] = lr
        theirs.grad = gradient
        adamw.step()
        sparse.step(shuffled, gradient[shuffled], lr)
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-6)


def batches(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randperm(NUM_PIECES - 1, generator=generator)[:3] for _ in range(steps)]  # the last row never


def test_it_is_sparse_adam_where_batches_hold_some_rows() -> None:
    torch.manual_seed(0)
    ours = torch.randn(NUM_PIECES, HIDDEN)
    theirs = nn.Parameter(ours.clone())
    eps = 1e-12  # the two add it before and after bias correction
    sparse = SparseAdamW(ours, BETAS, eps, 0.0)
    reference = torch.optim.SparseAdam([theirs], lr=0.02, betas=BETAS, eps=eps)
    for rows, gradient in zip(batches(20), gradients(20, 3), strict=True):
        theirs.grad = torch.sparse_coo_tensor(rows[None], gradient, theirs.shape, check_invariants=True).coalesce()
        reference.step()
        sparse.step(rows, gradient, 0.02)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-5)


def test_rows_outside_the_batch_stand_still() -> None:
    torch.manual_seed(0)
    weight = torch.randn(NUM_PIECES, HIDDEN)
    sparse = SparseAdamW(weight, BETAS, EPS, weight_decay=0.5)
    for rows, gradient in zip(batches(6), gradients(6, 3), strict=True):
        before = {name: t.clone() for name, t in sparse.tensors().items()} | {"weight": weight.clone()}
        sparse.step(rows, gradient, 0.1)
        outside = torch.ones(NUM_PIECES, dtype=torch.bool).index_fill(0, rows, False)
        for name, after in (sparse.tensors() | {"weight": weight}).items():
            if name == "num_steps":
                assert after == before[name] + 1
                continue
            assert torch.equal(after[outside], before[name][outside])
            assert not torch.equal(after[~outside], before[name][~outside])


def test_the_state_survives_a_round_trip() -> None:
    torch.manual_seed(0)
    start = torch.randn(NUM_PIECES, HIDDEN)
    schedule = list(zip(batches(8), gradients(8, 3), strict=True))
    whole, first = start.clone(), start.clone()
    unbroken, broken = SparseAdamW(whole, BETAS, EPS, 0.1), SparseAdamW(first, BETAS, EPS, 0.1)
    for rows, gradient in schedule:
        unbroken.step(rows, gradient, 0.1)
    for rows, gradient in schedule[:4]:
        broken.step(rows, gradient, 0.1)
    saved = {name: tensor.clone() for name, tensor in broken.tensors().items()}
    second = first.clone()
    resumed = SparseAdamW(second, BETAS, EPS, 0.1)
    resumed.load_tensors(saved)
    for rows, gradient in schedule[4:]:
        resumed.step(rows, gradient, 0.1)
    assert torch.equal(second, whole)
    assert int(resumed.tensors()["num_steps"]) == 8


def test_merging_sums_what_batches_share() -> None:
    first = (torch.tensor([5, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    second = (torch.tensor([2, 5]), torch.tensor([[10.0, 20.0], [30.0, 40.0]]))
    rows, gradient = coalesce([first, second])
    assert rows.tolist() == [1, 2, 5]
    assert gradient.tolist() == [[3, 4], [10, 20], [31, 42]]
    assert coalesce([first]) is first


def distilled(make_encoder: Any, sentences: list[str], *, sparse: bool, halves: int, weight_decay: float) -> Any:
    """An encoder after three steps towards a fixed target, each batch in `halves` parts, by the loop's own verbs."""
    from mlkd.training.gradient import TrainerArguments
    from mlkd.training.trainer import Trainer

    encoder = make_encoder(Pooling.mean)
    optim = Optim(
        lr=0.01, embedding_lr_factor=2.0, sparse_embeddings=sparse, accumulation_steps=halves, max_steps=3,
        weight_decay=weight_decay, eps=1e-6,
    )  # fmt: skip
    intervals, data = SimpleNamespace(total_steps=3), SimpleNamespace()
    loss = nn.Module()
    arguments = {"student": encoder, "loss": loss, "data": data, "optim": optim, "intervals": intervals}
    run = Trainer(TrainerArguments(**arguments, max_tokens=64))  # type: ignore[arg-type]
    for _ in range(3):
        parts: list[tuple[Tensor, Tensor]] = []
        tokens = encoder.tokenize(sentences)
        for half in range(halves):
            chosen = tokens[half::halves]
            run.gather_rows(chosen)
            target = torch.linspace(-1, 1, encoder.dimension).expand(len(chosen), -1)
            (F.mse_loss(encoder.forward_tokens(chosen, 64), target) / halves).backward()
            parts += run.release_rows()
        assert run.apply(parts)
        run.optimizer.zero_grad(set_to_none=True)
        run.state.step += 1
    return encoder


@pytest.mark.parametrize("halves", [1, 2])
def test_a_distillation_moves_sparse_rows_as_whole_ones(make_encoder: Any, sentences: list[str], halves: int) -> None:
    sparse, dense = (
        distilled(make_encoder, sentences, sparse=c, halves=halves, weight_decay=0.0) for c in (True, False)
    )
    start = make_encoder(Pooling.mean).state_dict()
    name = "backbone.embeddings.word_embeddings.weight"
    moved = (sparse.state_dict()[name] - start[name]).abs().amax(1) > 0
    used = {int(i) for row in sparse.tokenize(sentences) for i in row}
    assert set(moved.nonzero().flatten().tolist()) == used
    # Every batch holds the same rows and nothing decays: row-wise AdamW is AdamW.
    for key, weight in dense.state_dict().items():
        torch.testing.assert_close(sparse.state_dict()[key], weight, rtol=0, atol=2e-5, msg=key)


def test_accumulating_halves_is_one_batch(make_encoder: Any, sentences: list[str]) -> None:
    whole, halves = (distilled(make_encoder, sentences, sparse=True, halves=n, weight_decay=0.1) for n in (1, 2))
    for key, weight in whole.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[key], weight, rtol=0, atol=1e-4, msg=key)
