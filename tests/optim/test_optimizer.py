"""Schedules against tables and torch's own, parameter groups, and state that goes on bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from mlkd.errors import MlkdError
from mlkd.optim.adamw import load_optimizer_tensors, optimizer_tensors, set_learning_rate
from mlkd.optim.optimizer import Optim
from mlkd.optim.schedule import Schedule


def rates(optim: Optim, total: int) -> list[float]:
    return [optim.learning_rate(step, total) for step in range(total)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        (Schedule.constant, {"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Schedule.linear, {"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        (Schedule.linear, {"warmup_ratio": 0.5}, [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        (Schedule.linear, {}, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (Schedule.cosine, {"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]),
        (Schedule.linear, {"warmup_steps": 0}, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (Schedule.linear, {"warmup_ratio": 1.0}, [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]),
    ],
)
def test_schedules_by_hand(schedule: Schedule, warmup: dict[str, Any], expected: list[float]) -> None:
    optim = Optim(lr=2.0, schedule=schedule, max_steps=8, **warmup)
    assert rates(optim, 8) == pytest.approx([2 * e for e in expected], abs=1e-6)


@pytest.mark.parametrize("schedule", Schedule)
def test_schedules_are_torchs(schedule: Schedule) -> None:
    warmup, total = 5, 23
    reference = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    after = {
        Schedule.constant: lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
        Schedule.linear: lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total - warmup),
        Schedule.cosine: lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total - warmup),
    }[schedule](reference)
    expected = []
    for _ in range(total - warmup):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        after.step()
    optim = Optim(lr=0.3, schedule=schedule, warmup_steps=warmup, max_steps=total)
    assert rates(optim, total)[warmup:] == pytest.approx(expected, rel=1e-9)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(self.embedding(ids)))


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, Any]:
    (group,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return group


def test_groups_of_decay_and_learning_rate() -> None:
    student, loss = Small(), nn.Linear(4, 3)
    optim = Optim(lr=0.1, weight_decay=0.02, embedding_lr_factor=7.0, beta1=0.8, beta2=0.95, eps=1e-7, max_steps=1)
    optimizer = optim.build(student, loss, student.embedding.weight)
    expected = {
        student.embedding.weight: (0.02, 7.0),
        student.linear.weight: (0.02, 1.0),
        student.linear.bias: (0.0, 1.0),
        student.norm.weight: (0.0, 1.0),
        student.norm.bias: (0.0, 1.0),
        loss.weight: (0.02, 1.0),
        loss.bias: (0.0, 1.0),
    }
    for parameter, (decay, factor) in expected.items():
        group = group_of(optimizer, parameter)
        assert (group["weight_decay"], group["lr_factor"]) == (decay, factor)
        assert (group["betas"], group["eps"], group["fused"]) == ((0.8, 0.95), 1e-7, True)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(expected)
    set_learning_rate(optimizer, 0.5)
    assert group_of(optimizer, student.embedding.weight)["lr"] == 3.5
    assert group_of(optimizer, student.norm.bias)["lr"] == 0.5


def train(student: Small, optim: Optim, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_learning_rate(optimizer, optim.learning_rate(step, 10))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step % 2 == 1):
            student(torch.arange(6).roll(step)[:4]).float().square().mul(torch.arange(1.0, 5)).mean().backward()
        optimizer.step()


def test_state_through_flat_tensors_goes_on_bit_for_bit() -> None:
    optim = Optim(lr=0.05, embedding_lr_factor=3.0, schedule=Schedule.linear, warmup_steps=2, max_steps=10)
    torch.manual_seed(0)
    student, loss = Small(), nn.Linear(4, 3)  # the loss gets no gradient here and so has no state
    optimizer = optim.build(student, loss, student.embedding.weight)
    train(student, optim, optimizer, range(5))
    weights = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    assert len(saved) == 5 * 3 and all(isinstance(t, torch.Tensor) for t in saved.values())
    train(student, optim, optimizer, range(5, 10))

    def resumed(tensors: dict[str, torch.Tensor]) -> Small:
        other, other_loss = Small(), nn.Linear(4, 3)
        other.load_state_dict(weights)
        again = optim.build(other, other_loss, other.embedding.weight)
        load_optimizer_tensors(again, tensors)
        train(other, optim, again, range(5, 10))
        return other

    for name, tensor in resumed(saved).state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name
    without = resumed({})
    assert not torch.equal(without.linear.weight, student.linear.weight)  # the state does matter


def test_fused_steps_are_adamws() -> None:
    torch.manual_seed(0)
    student = Small()
    copy = Small()
    copy.load_state_dict(student.state_dict())
    optim = Optim(lr=0.05, weight_decay=0.1, max_steps=10)
    optimizer = optim.build(student, nn.Identity(), student.embedding.weight)
    decayed = [copy.embedding.weight, copy.linear.weight]
    others = [copy.linear.bias, copy.norm.weight, copy.norm.bias]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.05, eps=1e-6, foreach=False)
    for group in reference.param_groups:
        group["lr_factor"] = 1.0
    train(student, optim, optimizer, range(6))
    train(copy, optim, reference, range(6))
    for ours, theirs in zip(student.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "batches", "expected"),
    [
        ({"max_steps": 7}, 100, 7),
        ({"epochs": 3}, 10, 30),
        ({"epochs": 0.25}, 10, 3),
        ({"epochs": 2, "accumulation_steps": 4}, 10, 5),
        ({"epochs": 1, "accumulation_steps": 4}, 10, 3),
        ({"epochs": 0.001}, 10, 1),
    ],
)
def test_the_length_of_a_run(fields: dict[str, Any], batches: int, expected: int) -> None:
    assert Optim(**fields).total_steps(batches) == expected


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(MlkdError, match=r"must be <= the run's 20 steps \(got 21\)") as caught:
        Optim(epochs=2, warmup_steps=21).total_steps(10)
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == ("E204", "optim.warmup_steps")
    assert Optim(epochs=2, warmup_steps=20).total_steps(10) == 20


def problems(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        Optim(**fields)
    return [(p.code, p.where) for p in caught.value.problems]


def test_contradictions() -> None:
    assert problems(epochs=1, max_steps=1) == [("E209", "")]
    assert problems() == [("E205", "")]
    assert problems(epochs=1, warmup_steps=1, warmup_ratio=0.1) == [("E209", "")]
    assert problems(max_steps=3, warmup_steps=4) == [("E204", "warmup_steps")]
    with pytest.raises(MlkdError, match=r"set only one of max_steps \(1000\) and epochs \(3\)"):
        Optim(max_steps=1000, epochs=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("lr", math.nan),
        ("embedding_lr_factor", 0.0),
        ("weight_decay", -0.1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
        ("clip_norm", 0.0),
        ("warmup_steps", -1),
        ("warmup_ratio", 1.1),
        ("batch_size", 0),
        ("accumulation_steps", 0),
        ("max_steps", 0),
    ],
)
def test_ranges(field: str, value: float) -> None:
    assert problems(**{"max_steps": 9} | {field: value}) == [("E204", field)]


def test_all_problems_come_together() -> None:
    found = problems(lr=-1.0, batch_size=0, epochs=1, max_steps=1)
    assert found == [("E204", "lr"), ("E204", "batch_size"), ("E209", "")]
