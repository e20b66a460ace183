"""Several processes compute the loss of the one big batch, and its gradient."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlkd.losses.feature import FeatureDistance, FeatureTarget, FeatureTerm, Projection
from mlkd.losses.gather import gather_vectors, is_distributed
from mlkd.losses.mix import LossMix, MixLoss
from mlkd.losses.negatives import Against
from mlkd.losses.ranking import InfoNceRanking
from mlkd.losses.vectors import NOBODY, PairVectors

WORLD = 2
GLOBAL = 6  # pairs of both ranks
LEAVES = ("student_source_BD", "student_target_BD", "student_negatives_KD")


def the_mix() -> LossMix:
    """Every kind of term: in-batch, mined and further negatives, a projection, the whole cosine matrix."""
    ranking = InfoNceRanking(scale=4.0, against=Against.both, hard_negatives=1, teacher_negatives=2)
    feature = FeatureTerm(distance=FeatureDistance.squared_l2, target=FeatureTarget.own, projection=Projection.dense)
    return LossMix(alpha=1.0, beta=0.5, gamma=3.0, temperature=1.0, ranking=ranking, feature=feature)


def the_loss() -> MixLoss:
    torch.manual_seed(3)
    return the_mix().build(4, 4).double()


def the_batch() -> PairVectors:
    # Pairs of different ranks share source texts, and so do pairs and negatives.
    generator = torch.Generator().manual_seed(0)
    sizes = (GLOBAL, GLOBAL, GLOBAL, GLOBAL, 4, 4)
    drawn = [torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in sizes]
    return PairVectors(
        student_source_BD=drawn[0],
        student_target_BD=drawn[1],
        teacher_source_BE=drawn[2],
        teacher_target_BE=drawn[3],
        source_ids_B=torch.tensor([0, 1, 2, 0, 4, 5]),
        student_negatives_KD=drawn[4],
        student_negative_ids_K=torch.tensor([0, 9, 2, 4]),
        teacher_negatives_QE=drawn[5],
        teacher_negative_ids_Q=torch.tensor([5, 1, 8, NOBODY]),
    )


def part(vectors: PairVectors, rank: int) -> PairVectors:
    """The rank's share of every field."""
    shares = {}
    for field in dataclasses.fields(vectors):
        value = getattr(vectors, field.name)
        if value is not None:
            size = len(value) // WORLD
            shares[field.name] = value[rank * size : (rank + 1) * size].clone()
    return PairVectors(**shares)


def gradients(loss: MixLoss, vectors: PairVectors) -> dict[str, torch.Tensor]:
    """Loss, and its gradient at the student's vectors and at the projection."""
    for name in LEAVES:
        getattr(vectors, name).requires_grad_()
    values = loss(vectors)
    values.total.backward()
    found = {name: getattr(vectors, name).grad for name in LEAVES}
    assert loss.projection is not None
    return {**found, "projection": loss.projection.weight.grad, "total": values.total.detach()}


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=WORLD)
    loss = the_loss()
    save_file(gradients(loss, part(the_batch(), rank)), f"{folder}/{rank}.safetensors")
    del loss
    gc.collect()
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(WORLD)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]

    whole = gradients(the_loss(), the_batch())
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(WORLD)]
    for one in found:
        assert one["total"].item() == pytest.approx(whole["total"].item(), rel=1e-12)
    # Data-parallel training takes the mean over ranks; a rank's vectors reach the loss of the other rank as well.
    for name in LEAVES:
        together = torch.cat([one[name] for one in found]) / WORLD
        assert torch.allclose(together, whole[name], rtol=1e-10, atol=1e-12), name
    projection = torch.stack([one["projection"] for one in found]).mean(dim=0)
    assert torch.allclose(projection, whole["projection"], rtol=1e-10, atol=1e-12)
    # The batch of one rank alone gives another gradient: there are negatives that it does not see.
    alone = gradients(the_loss(), part(the_batch(), 0))
    assert (alone["student_source_BD"] - whole["student_source_BD"][: GLOBAL // WORLD]).abs().max() > 1e-3


def test_one_process_gathers_nothing() -> None:
    vectors = the_batch()
    assert not is_distributed()
    assert gather_vectors(vectors) is vectors


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), sys.argv[2])
