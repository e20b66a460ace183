"""Curves: what is drawn from the run log."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from mlkd.report.plots.curves import evaluation_curves, loss_curves
from mlkd.report.results import Results


def train_line(step: int, **values: float | None) -> dict[str, Any]:
    return {"step": step, "kind": "train", "lr": 1e-3, **{k.replace("__", "/"): v for k, v in values.items()}}


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_total_each_term_and_the_shares_are_drawn() -> None:
    lines = [
        train_line(s, loss=3.0 / s, loss__feature=1.0 / s, loss__ranking=2.0 / s, raw__feature=9.0,
                   gradient_share__feature=0.2, gradient_share__ranking=0.8)
        for s in (1, 2, 3)
    ]  # fmt: skip
    titles = [plot.title for plot in loss_curves(lines)]
    assert titles == ["total loss", "feature term", "ranking term", "share of the gradient (%)"]
    assert {"feature", "ranking", "step"} <= set(words(loss_curves(lines)[-1].svg))


def test_a_single_term_that_is_the_total_is_drawn_once() -> None:
    lines = [train_line(s, loss=1.0 / s, loss__feature=1.0 / s) for s in (1, 2)]
    assert [plot.title for plot in loss_curves(lines)] == ["total loss"]


def test_values_that_are_not_numbers_are_left_out_and_repeated_steps_replaced() -> None:
    clean = [train_line(1, loss=2.0), train_line(2, loss=1.0)]
    noisy = [train_line(2, loss=77.0), *clean, train_line(3, loss=None), train_line(4, loss=float("nan"))]
    assert loss_curves(noisy) == loss_curves(clean)
    assert loss_curves([train_line(1, loss=None)]) == []


def test_evaluation_curve_has_the_other_systems_as_levels(results: Results) -> None:
    lines: list[dict[str, Any]] = [
        {"step": s, "kind": "eval", "tatoeba/de/accuracy": s, "tatoeba/mean/accuracy": s, "tatoeba/mean/xx->en": s}
        for s in (10, 20)
    ]
    plots = evaluation_curves(lines, results)
    assert [plot.title for plot in plots] == ["tatoeba accuracy (%)"]  # xx->en is not the main metric
    assert {"teacher", "de"} <= set(words(plots[0].svg))
    assert "untrained" not in words(plots[0].svg)  # its mean is undefined
    assert len(evaluation_curves(lines, None)) == 2


def test_names_are_not_read_as_formulas() -> None:
    lines = [{"step": s, "kind": "eval", "t$x$/mean/m$^$": s, "t$x$/$_$/m$^$": s} for s in (1, 2)]
    assert "$_$" in words(evaluation_curves(lines, None)[0].svg)
