"""Two processes compute the losses, gradients and weights of one, with every kind of term, batch after batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlkd.data.batches import Batches
from mlkd.data.pairs import LanguagePair
from mlkd.data.token_store import TokenStore
from mlkd.data.training_pairs import TrainingPairs
from mlkd.distributed.process_group import ProcessGroup
from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm, Projection
from mlkd.losses.masked_lm import MaskedLmTerm
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import Candidates, NegativePool
from mlkd.models.masked_lm import MaskedLm
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder, TextSettings
from mlkd.models.serialization import load_transformer
from mlkd.optim.optimizer import Optim
from mlkd.training.dataloader import TrainingData
from mlkd.training.gradient import TrainerArguments
from mlkd.training.state import Intervals
from mlkd.training.trainer import Trainer

SIZE = 2
STEPS = 2
WIDTH = 16
NEGATIVES = InfoNceRanking(
    candidates=Candidates.both, hard_negatives=2, teacher_negatives=5, teacher_negatives_from=NegativePool.cache
)
DENSE = FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own, projection=Projection.dense)
MIXES = {
    "mse": LossMix(),
    "ams": LossMix(alpha=1.0, beta=0.0, ranking=AmsRanking(scale=20.0)),
    "projection": LossMix(alpha=1.0, beta=2.0, gamma=3.0, temperature=1.0, ranking=AmsRanking(), feature=DENSE),
    "negatives": LossMix(alpha=1.0, beta=1.0, ranking=NEGATIVES),
    "everything": LossMix(alpha=1.0, beta=2.0, gamma=3.0, delta=0.5, temperature=1.0, ranking=NEGATIVES),
    # One hidden token in a batch: one of the processes has none.
    "one token": LossMix(delta=0.5, masked_lm=MaskedLmTerm(mask_share=1e-6)),
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"mix": name} for name in ("mse", "ams", "projection", "one token")},
    "sparse": {"mix": "negatives", "sparse_embeddings": True, "accumulation_steps": 2},
    "not sparse": {"mix": "negatives", "accumulation_steps": 2},
    "sparse everything": {"mix": "everything", "sparse_embeddings": True},
    "cached": {"mix": "everything", "caching": True, "max_tokens": 30},
}


def trainer(case: str, bert: Path, folder: Path) -> Trainer:
    """A run over 21 pairs in batches of 7, in float64; the pairs of a batch and their negatives are odd in number."""
    settings = dict(CASES[case])
    mix = MIXES[settings.pop("mix")]
    optim = {name: settings.pop(name) for name in ("sparse_embeddings", "accumulation_steps") if name in settings}
    backbone, tokenizer = load_transformer(bert)
    text = TextSettings(max_length=24)
    student = SentenceEncoder(backbone, tokenizer, pooling=Pooling.mean, text=text).eval().double()
    torch.manual_seed(1)
    sizes = {"num_pieces": backbone.config.vocab_size, "embedding_dim": WIDTH}
    masked = MaskedLm(mix.masked_lm, student, **sizes, seed=1).double() if mix.delta else None
    loss = mix.build(WIDTH, WIDTH).double()
    words = ["kra", "bei", "sta", "plu", "schein", "gor", "fi", "ton"]
    texts = [" ".join(words[(n * k + k) % 8] for k in range(1, 2 + n % 9)) + f" {n}" for n in range(42)]
    pairs = TrainingPairs.from_corpus([LanguagePair("en", "de", texts[:21], texts[21:])])
    vectors = torch.randn(len(pairs.texts), WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    data = TrainingData(
        pairs,
        TokenStore.open_or_build(folder, pairs.texts, student.tokenize, "test"),
        SimpleNamespace(rows=lambda positions: vectors[positions]),  # type: ignore[arg-type]
        np.arange(len(pairs.texts)),
        Batches([21], 7, seed=1),
        np.stack([(np.arange(21) + 3) % 21, np.where(np.arange(21) % 3, (np.arange(21) + 5) % 21, -1)], axis=1),
    )
    return Trainer(
        TrainerArguments(
            student=student,
            loss=loss,
            data=data,
            optim=Optim(lr=0.01, eps=1e-3, batch_size=7, max_steps=8, clip_norm=0.1, **optim),
            intervals=Intervals(total_steps=8, log_every=1, evaluate_every=8, checkpoint_every=8, patience=None),
            precision=None,
            masked_lm=masked,
            **{"max_tokens": 100, **settings},
        )
    )


def all_outcomes(bert: Path, folder: Path, process_group: ProcessGroup) -> dict[str, Tensor]:
    """Of every case: gradients of a first step, and losses, shares and weights of the steps after it."""
    found: dict[str, Tensor] = {}
    for case in CASES:
        run = trainer(case, bert, folder)
        run.process_group = process_group
        sparse_gradients = run.gradient(with_shares=False).sparse_gradients
        named = {**dict(run.student.named_parameters()), **dict(run.loss.named_parameters())}
        named |= {} if run.masked_lm is None else dict(run.masked_lm.named_parameters(prefix="masked"))
        found |= {f"{case}|gradient {name}": p.grad.clone() for name, p in named.items() if p.grad is not None}
        if sparse_gradients:
            dense = torch.zeros_like(run.embedding.weight)
            for rows, gradient in sparse_gradients:
                dense.index_add_(0, rows, gradient)
            found[f"{case}|gradient rows"] = dense
        run.optimizer.zero_grad(set_to_none=True)
        run.state.batch = 0
        for step in range(STEPS):
            values, shares, num_tokens = run.step(with_shares=True)
            assert shares is not None
            terms = [values.total, *values.raw.values()]
            found[f"{case}|step {step}"] = torch.stack([t.detach() for t in terms])
            found[f"{case}|shares {step}"] = torch.tensor([*shares.values(), num_tokens], dtype=torch.float64)
        found |= {f"{case}|weight {name}": p.detach().clone() for name, p in named.items()}
    return found


def memory_runs_out(bert: Path, folder: Path, process_group: ProcessGroup) -> dict[str, Tensor]:
    """The second process fails once in its backward pass, both once in the forward pass: all go back together."""
    run = trainer("sparse", bert, folder)
    run.process_group = process_group
    forward, calls = run.forward, 0

    def limited(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        values, vectors = forward(batch)
        if calls == 2 and process_group.rank == 1:
            raise torch.OutOfMemoryError("in one process")
        if calls == 4:
            raise torch.OutOfMemoryError("in all processes")
        return values, vectors

    run.forward = limited  # type: ignore[method-assign]
    values, _, _ = run.step()
    assert (run.caching, run.max_tokens, run.state.batch) == (True, 50, 2)
    return {"memory": values.total.detach().reshape(1), "calls": torch.tensor([calls])}


def one_loss_is_not_finite(bert: Path, folder: Path, process_group: ProcessGroup) -> dict[str, Tensor]:
    """The loss is NaN on the second process alone: both skip the step."""
    run = trainer("mse", bert, folder)
    run.process_group = process_group
    before = [weight.clone() for weight in run.weights()]
    forward = run.forward

    def spoiled(batch: Any) -> Any:
        values, vectors = forward(batch)
        return values.plus("nothing", torch.tensor(float("nan") if process_group.rank == 1 else 0.0), 1.0), vectors

    run.forward = spoiled  # type: ignore[method-assign]
    run.step()
    unchanged = all(map(torch.equal, run.weights(), before))
    return {"skipped": torch.tensor([run.state.skipped, int(unchanged)])}


def one_rank(rank: int, port: int, bert: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    process_group = ProcessGroup(rank, SIZE)
    process_group.init(torch.device("cpu"), port, announce=lambda p: print(p, flush=True) if rank == 0 else None)
    found = all_outcomes(bert, folder, process_group) | memory_runs_out(bert, folder, process_group)
    found |= one_loss_is_not_finite(bert, folder, process_group)
    save_file(found, folder / f"{rank}.safetensors")
    process_group.destroy(abort=False)


@pytest.fixture(scope="module")
def outcomes(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("ranks")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = all_outcomes(tiny_bert, folder, ProcessGroup())
    torch.set_num_threads(before)
    arguments = [str(tiny_bert), str(folder)]
    command = [sys.executable, __file__]
    first = subprocess.Popen([*command, "0", "0", *arguments], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    with first, subprocess.Popen([*command, "1", first.stdout.readline().strip(), *arguments]) as second:
        assert (first.wait(timeout=120), second.wait(timeout=120)) == (0, 0)
    return [alone, *(load_file(folder / f"{rank}.safetensors") for rank in range(SIZE))]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(outcomes: list[dict[str, Tensor]], case: str) -> None:
    alone, *process_group = ({k: v for k, v in found.items() if k.startswith(f"{case}|")} for found in outcomes)
    assert len(alone) > 40
    assert max(float(v.abs().max()) for k, v in alone.items() if "gradient" in k) > 1e-3
    for found in process_group:
        assert set(found) == set(alone)
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)
    weights = [name for name in alone if "weight" in name]
    assert all(torch.equal(process_group[0][name], process_group[1][name]) for name in weights)


def test_memory_that_runs_out_in_one_process_sends_all_back(outcomes: list[dict[str, Tensor]]) -> None:
    alone, *process_group = outcomes
    for found in process_group:
        # The last of the two batches of a first step: their number is that of the case without lack of memory.
        torch.testing.assert_close(found["memory"], alone["sparse|step 0"][:1], rtol=1e-8, atol=1e-10)
    assert [int(found["calls"]) for found in process_group] == [6, 6]


def test_a_step_is_skipped_by_all_or_none(outcomes: list[dict[str, Tensor]]) -> None:
    assert [found["skipped"].tolist() for found in outcomes[1:]] == [[1, 1], [1, 1]]


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
