"""A step's gradient: the same with cached gradients, with too little memory, and after a restart."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mlkd.data.batches import Batches
from mlkd.data.pairs import LanguagePair
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.errors import MlkdError
from mlkd.losses.masked_lm import MASKED_LM
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates, NegativePool
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.optim.optimizer import Optim
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest
from mlkd.training.dataloader import TrainingData
from mlkd.training.gradient import TrainerArguments
from mlkd.training.resume import restore_training_state, save_training_state
from mlkd.training.state import Intervals
from mlkd.training.trainer import Trainer

DIMENSION = 16
# Every term, every kind of negative.
EVERYTHING = LossMix(
    alpha=1.0,
    beta=2.0,
    gamma=3.0,
    delta=0.5,
    temperature=1.0,
    ranking=InfoNceRanking(candidates=Candidates.both, hard_negatives=2, teacher_negatives=5),
)
WHOLE_MATRIX = LossMix(alpha=1.0, beta=2.0, gamma=3.0, temperature=1.0, ranking=AmsRanking(scale=20.0))


class Runs:
    """Makes runs over the same 20 pairs; each has its own student of the same weights."""

    def __init__(self, make_encoder: Callable[..., SentenceEncoder], sentences: list[str], folder: Path) -> None:
        self.make_encoder = make_encoder
        self.folder = folder
        self.pairs = TrainingPairs.from_corpus([LanguagePair("en", "de", sentences[:20], sentences[20:40])])
        generator = torch.Generator().manual_seed(5)
        self.vectors = torch.randn(len(self.pairs.texts), DIMENSION, generator=generator)

    def __call__(self, mix: LossMix, *, double: bool = False, dropout: bool = True, **settings: Any) -> Trainer:
        optim = {name: settings.pop(name) for name in ("sparse_embeddings", "accumulation_steps") if name in settings}
        student = self.make_encoder()
        student.train(dropout)
        student.to(torch.float64 if double else torch.float32)
        embedding = student.backbone.get_input_embeddings()
        sizes = {"num_pieces": embedding.num_embeddings, "embedding_dim": embedding.embedding_dim}
        masked = MaskedLm(mix.masked_lm, student, **sizes, seed=1) if mix.delta else None
        vectors = self.vectors.double() if double else self.vectors
        negatives = np.stack([(np.arange(20) + 3) % 20, np.full(20, -1)], axis=1)
        tokens = TokenStore.open_or_build(self.folder, self.pairs.texts, student.tokenize, "test")
        data = TrainingData(
            self.pairs,
            tokens,
            SimpleNamespace(rows=lambda p: vectors[p]),
            np.arange(len(self.pairs.texts)),
            Batches([20], 10, seed=1),
            negatives,
        )
        torch.manual_seed(11)
        return Trainer(
            TrainerArguments(
                student=student,
                loss=mix.build(DIMENSION, DIMENSION),
                data=data,
                optim=Optim(lr=0.01, batch_size=10, max_steps=8, **optim),
                intervals=Intervals(total_steps=8, log_every=1, evaluate_every=8, checkpoint_every=8, patience=None),
                precision=None,
                masked_lm=masked if masked is None else masked.to(torch.float64 if double else torch.float32),
                **settings,
            )
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These matrices are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runs(make_encoder: Callable[..., SentenceEncoder], sentences: list[str], tmp_path: Path) -> Runs:
    return Runs(make_encoder, sentences, tmp_path)


def gradients(run: Trainer) -> dict[str, Tensor]:
    """All gradients of the first step, and its loss."""
    found = run.gradient(with_shares=False)
    result = {name: p.grad for name, p in run.student.named_parameters() if p.grad is not None}
    if run.masked_lm is not None:
        result |= {f"head.{name}": p.grad for name, p in run.masked_lm.named_parameters()}
    result |= {f"sparse{n}": gradient for n, (_, gradient) in enumerate(found.sparse_gradients)}
    return {**result, "loss": found.values.total.detach()}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mix", [WHOLE_MATRIX, EVERYTHING], ids=["whole matrix", "everything"])
def test_cached_gradients_are_those_of_the_full_batch(runs: Runs, mix: LossMix, *, sparse: bool) -> None:
    settings: dict[str, Any] = {"double": True, "dropout": False, "sparse_embeddings": sparse}
    full = gradients(runs(mix, max_tokens=10**6, **settings))
    cached = gradients(runs(mix, max_tokens=30, caching=True, **settings))
    assert set(cached) == set(full)
    assert max(float(g.abs().max()) for g in full.values()) > 0.1
    for name, gradient in full.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(cached[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mix", [WHOLE_MATRIX, EVERYTHING], ids=["whole matrix", "everything"])
def test_caching_changes_no_bit_under_dropout(runs: Runs, mix: LossMix, *, sparse: bool) -> None:
    found = []
    for caching in (False, True):
        run = runs(mix, max_tokens=60, caching=caching, sparse_embeddings=sparse, accumulation_steps=2)
        found.append({**gradients(run), "random": torch.get_rng_state()})
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
    other = runs(mix, max_tokens=60, sparse_embeddings=sparse, accumulation_steps=2)
    torch.manual_seed(12)
    assert not torch.equal(gradients(other)["loss"], found[0]["loss"])  # dropout is on


def fail_above(run: Trainer, tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the student's backbone fail as a full GPU does on more than `tokens`; gives the sizes it read."""
    backbone, sizes = run.student.backbone, []
    forward = type(backbone).forward

    def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
        size = kwargs["input_ids"].numel()
        if self is backbone and size > tokens:
            raise torch.OutOfMemoryError(f"{size} tokens do not fit")
        sizes.append(size)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(backbone), "forward", limited)
    return sizes


def test_too_little_memory_costs_time_and_nothing_else(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = runs(EVERYTHING, max_tokens=64, accumulation_steps=2, caching=True)
    expected = gradients(plain)
    run = runs(EVERYTHING, max_tokens=256, accumulation_steps=2)
    sizes = fail_above(run, 64, monkeypatch)
    with caplog.at_level(logging.WARNING, "mlkd"):
        found = run.gradient_in_memory(with_shares=False)
    assert max(sizes) <= 64
    assert (run.caching, run.max_tokens, run.state.batch) == (True, 64, 2)
    assert "gradients are cached from here on" in caplog.text
    assert "retried with 64 token positions in a forward pass instead of 128" in caplog.text
    # The same batches, negatives and random numbers: bit by bit what a run of this size has from the start.
    for name, parameter in run.student.named_parameters():
        assert parameter.grad is None or torch.equal(parameter.grad, expected[name]), name
    assert torch.equal(found.values.total, expected["loss"])
    assert found.num_tokens == sum(run.data.batch(n, EVERYTHING).num_tokens for n in (0, 1))


def test_memory_too_small_for_one_sentence_is_an_error(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs(WHOLE_MATRIX, max_tokens=256)
    fail_above(run, 4, monkeypatch)
    with pytest.raises(MlkdError, match=r"error\[E520\]: out of device memory in training, with one sentence"):
        run.step()
    assert all(p.grad is None for p in run.student.parameters())


@pytest.mark.parametrize("pool", list(NegativePool))
def test_everything_goes_on_exactly(runs: Runs, tmp_path: Path, pool: NegativePool) -> None:
    mix = dataclasses.replace(EVERYTHING, ranking=dataclasses.replace(EVERYTHING.ranking, teacher_negatives_from=pool))
    settings: dict[str, Any] = {"max_tokens": 60, "caching": True, "sparse_embeddings": True}
    whole = runs(mix, **settings)
    losses = [float(whole.step()[0].total.detach()) for _ in range(6)]
    first = runs(mix, **settings)
    assert [float(first.step()[0].total.detach()) for _ in range(3)] == losses[:3]
    save_training_state(first, CheckpointWriter(tmp_path / "checkpoints", keep=1))
    second = runs(mix, **settings)
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint is not None
    restore_training_state(second, checkpoint)
    assert [float(second.step()[0].total.detach()) for _ in range(3)] == losses[3:]
    for name, weight in whole.student.state_dict().items():
        assert torch.equal(second.student.state_dict()[name], weight), name
    assert whole.masked_lm is not None and second.masked_lm is not None
    assert torch.equal(second.masked_lm.bias_V, whole.masked_lm.bias_V)


def test_fewer_tokens_outlive_a_restart(runs: Runs, tmp_path: Path) -> None:
    first = runs(WHOLE_MATRIX, max_tokens=256)
    first.step()
    first.state.max_tokens = 32
    save_training_state(first, CheckpointWriter(tmp_path / "checkpoints", keep=1))
    checkpoint = load_latest(tmp_path / "checkpoints")
    second = runs(WHOLE_MATRIX, max_tokens=256)
    assert second.max_tokens == 256
    assert checkpoint is not None
    restore_training_state(second, checkpoint)
    assert second.max_tokens == 32


def test_shares_of_the_masked_language_model(runs: Runs) -> None:
    run = runs(EVERYTHING, max_tokens=60, double=True, dropout=False)
    values, shares, _ = run.step(with_shares=True)
    assert shares is not None
    assert list(shares) == list(values.weighted) == ["ranking", "feature", "similarity", MASKED_LM]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    # An independent figure: gradients of two runs, one without the masked language model, the other with nothing else.
    alone = gradients(runs(dataclasses.replace(EVERYTHING, delta=0.0), max_tokens=60, double=True, dropout=False))
    is_distributed = gradients(runs(EVERYTHING, max_tokens=60, double=True, dropout=False))
    names = [n for n, p in runs(EVERYTHING, max_tokens=60).student.named_parameters() if p.ndim and "word_emb" not in n]
    mix = sum(alone[n].square().sum() for n in names if n in alone) ** 0.5
    auxiliary = sum((is_distributed[n] - alone[n]).square().sum() for n in names if n in alone) ** 0.5
    assert shares[MASKED_LM] == pytest.approx(float(auxiliary / (mix + auxiliary)), rel=1e-6)


def test_the_masked_language_model_learns_and_stays_out_of_the_student(runs: Runs) -> None:
    mix = LossMix(alpha=0.0, beta=1e-6, delta=1.0)
    run = runs(mix, max_tokens=200, dropout=False)
    losses = []
    for _ in range(8):
        run.state.batch = 0  # the same batch, and so the same hidden tokens
        losses.append(float(run.step()[0].raw[MASKED_LM].detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert losses[0] == pytest.approx(np.log(run.embedding.num_embeddings), rel=0.6)
    assert not any("dense" in name and "masked" in name for name in run.student.state_dict())
