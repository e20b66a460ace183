"""A term of one's own: a dataclass and a YAML option put it into the mix, its needs into the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor, nn

from mlkd.config import composition
from mlkd.config.composition import build_config, compose_config
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.losses.gradient_shares import negligible_warning
from mlkd.losses.mix import LossMix, gradient_shares
from mlkd.losses.pair_vectors import PairVectors
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.negatives import NegativePool
from mlkd.losses.term import AdditionalTerm, TermContext, TermFunction

MakeVectors = Callable[..., PairVectors]


@dataclass(kw_only=True, slots=True)
class DropoutConsistency(AdditionalTerm):
    """Squared distance of S(x) under two dropout masks, to the power of `exponent`."""

    exponent: float = 1.0

    @property
    def needs_second_dropout_pass(self) -> bool:
        return True

    def __call__(self, vectors: PairVectors) -> Tensor:
        assert vectors.student_source_second_pass_BD is not None
        difference_BD = vectors.student_source_BD - vectors.student_source_second_pass_BD
        return difference_BD.square().sum(dim=1).pow(self.exponent).mean()


class Scaled(nn.Module):
    """A weight to train, times the mean of S(y)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.scale_E = nn.Parameter(torch.full((dimension,), 2.0))

    def forward(self, vectors: PairVectors) -> Tensor:
        return (self.scale_E * vectors.student_target_BD).mean()


@dataclass(kw_only=True, slots=True)
class Demanding(AdditionalTerm):
    """Needs everything, and has weights to train."""

    pool: NegativePool = NegativePool.cache

    needs_teacher_target = property(lambda self: True)  # type: ignore[assignment]
    needs_pre_projection = property(lambda self: True)  # type: ignore[assignment]
    num_hard_negatives = property(lambda self: 3)  # type: ignore[assignment]
    has_student_candidates = property(lambda self: True)  # type: ignore[assignment]
    has_teacher_candidates = property(lambda self: True)  # type: ignore[assignment]
    num_teacher_negatives = property(lambda self: 7)  # type: ignore[assignment]
    negative_pool = property(lambda self: self.pool)  # type: ignore[assignment]
    compares_dimensions = property(lambda self: True)  # type: ignore[assignment]
    reduces_teacher = property(lambda self: True)  # type: ignore[assignment]

    def build(self, context: TermContext) -> TermFunction:
        return Scaled(context.teacher_dimension)

    def __call__(self, vectors: PairVectors) -> Tensor:
        raise AssertionError("built as a module")


NEEDS = (
    "needs_teacher_target",
    "needs_second_dropout_pass",
    "needs_pre_projection",
    "num_hard_negatives",
    "has_student_candidates",
    "has_teacher_candidates",
    "num_teacher_negatives",
    "negative_pool",
    "compares_dimensions",
    "reduces_teacher",
)


def needs(mix: LossMix) -> dict[str, object]:
    return {name: getattr(mix, name) for name in NEEDS}


def test_its_value_gradient_and_share_are_in_the_mix(vectors: MakeVectors) -> None:
    v = vectors(num_pairs=3)
    x = v.student_source_BD.requires_grad_()
    mix = LossMix(beta=2.0, terms={"consistency": DropoutConsistency(weight=0.5, exponent=2.0)})
    values = mix.build(4, 4)(v)
    assert list(values.raw) == list(values.weighted) == ["feature", "consistency"]
    assert v.student_source_second_pass_BD is not None
    again = v.student_source_second_pass_BD.tolist()
    by_hand = math.fsum(math.dist(a, b) ** 4 for a, b in zip(x.tolist(), again, strict=True)) / 3
    assert values.raw["consistency"].item() == pytest.approx(by_hand, rel=1e-12)
    feature = LossMix(beta=2.0).build(4, 4)(v).total.item()
    assert values.total.item() == pytest.approx(feature + 0.5 * by_hand, rel=1e-12)
    (gradient,) = torch.autograd.grad(values.weighted["consistency"], x, retain_graph=True)
    assert gradient.norm() > 0
    shares = gradient_shares(values, [x])
    assert list(shares) == ["feature", "consistency"]
    assert min(shares.values()) > 0


def test_its_needs_are_the_mixs_while_it_has_a_weight() -> None:
    plain = needs(LossMix())
    assert needs(LossMix(terms={"more": DropoutConsistency()})) == plain | {"needs_second_dropout_pass": True}
    assert needs(LossMix(terms={"more": DropoutConsistency(weight=0.0)})) == plain
    everything = needs(LossMix(beta=0.0, terms={"more": Demanding(), "other": DropoutConsistency()}))
    assert everything == dict.fromkeys(NEEDS, True) | {
        "num_hard_negatives": 3,
        "num_teacher_negatives": 7,
        "negative_pool": NegativePool.cache,
    }


def test_its_trainable_weights_are_the_losss(vectors: MakeVectors) -> None:
    loss = LossMix(beta=0.0, terms={"more": Demanding(weight=3.0)}).build(4, 4).double()
    (parameter,) = loss.parameters()
    v = vectors()
    loss(v).total.backward()
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, 3 * v.student_target_BD.mean(dim=0) / 4)


def test_two_pools_of_teacher_negatives_are_refused() -> None:
    ranking = InfoNceRanking(teacher_negatives=5)
    LossMix(alpha=1.0, ranking=ranking, terms={"more": Demanding(pool=NegativePool.queue)})
    with pytest.raises(MlkdError, match="got ranking from queue, more from cache"):
        LossMix(alpha=1.0, ranking=ranking, terms={"more": Demanding()})


@pytest.mark.parametrize("name", ["ranking", "feature", "similarity", "masked_lm"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(MlkdError) as caught:
        LossMix(terms={name: DropoutConsistency()})
    assert [(p.code, p.where) for p in caught.value.problems] == [("E209", f"terms.{name}")]


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_its_weight_has_a_range(weight: float) -> None:
    with pytest.raises(MlkdError) as caught:
        DropoutConsistency(weight=weight)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "weight")]


def test_the_warning_of_a_negligible_term_names_its_weight() -> None:
    assert "loss.terms.consistency.weight times 22" in negligible_warning("consistency", 0.005)


@pytest.fixture
def option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The option loss/terms=consistency: a schema and a YAML file."""
    store = ConfigStore.instance()
    store.store(group="loss/terms", name="dropout_consistency", node=DropoutConsistency)
    folder = tmp_path / "loss" / "terms"
    folder.mkdir(parents=True)
    lines = [
        "# @package loss.terms.consistency",
        "defaults:",
        "  - /loss/terms/dropout_consistency@_here_",
        "  - _self_",
        "exponent: 3.0",
    ]
    (folder / "consistency.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(composition, "EXTRA_CONFIG_DIRS", [tmp_path])
    yield
    del store.repo["loss"]["terms"]


def test_a_yaml_option_puts_it_into_a_run(option: None) -> None:
    overrides = ["+loss/terms=consistency", "loss=mse", "loss.terms.consistency.weight=0.25", "student.dropout=0.1"]
    config = build_config(compose_config("train", overrides), TrainConfig)
    assert config.loss.terms == {"consistency": DropoutConsistency(weight=0.25, exponent=3.0)}
    assert (
        dataclasses.replace(config.loss, terms={})
        == build_config(compose_config("train", ["loss=mse"]), TrainConfig).loss
    )
    assert config.loss.needs_second_dropout_pass
    with pytest.raises(MlkdError) as caught:
        build_config(compose_config("train", [*overrides, "loss.terms.consistency.weight=-1"]), TrainConfig)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E204", "loss.terms.consistency.weight")]
