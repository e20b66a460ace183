"""Drawings of scores: languages in order, systems told apart, names that hide nothing."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from mlkd.report.plots.scores import Costed, cost_plot, score_plot, similarity_histogram
from mlkd.report.results import Results
from mlkd.report.tables import Cell, build_tables


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_languages_are_sorted_and_the_mean_is_last(results: Results) -> None:
    drawn = words(score_plot(build_tables(results)[0], results.systems).svg)
    assert [word for word in drawn if word in ("de", "fr", "mean")] == ["fr", "de", "mean"]


def test_the_eighth_system_has_the_first_colour_and_another_shape(results: Results) -> None:
    many = {f"s{i}": results.results["student"][1:2] for i in range(8)}
    systems = list(many)
    drawn = score_plot(build_tables(Results(systems=systems, results=many))[0], systems).svg
    shapes = {path.get("d") for path in ElementTree.fromstring(drawn).iter("path") if path.get("id")}
    assert len(shapes) >= 2 and "var(--c6)" in drawn and "var(--c7)" not in drawn


def test_score_against_cost_names_every_system(results: Results) -> None:
    points = [
        Costed("a", "a", 1e6, Cell("60.0", 60.0, ("58.0", "62.0"), (58.0, 62.0))),
        Costed("b", "b" * 40, 3e7, Cell("61.0", 61.0)),
        Costed("c", "c", 3e7, Cell("61.0", 61.0)),
    ]
    plot = cost_plot("sts spearman (x100)", points, ["a", "b", "c"], "parameters", "spearman")
    drawn = words(plot.svg)
    assert {"a", "c", "b" * 25 + "…", "parameters", "1M", "10M"} <= set(drawn)
    assert all(f"var({colour})" in plot.svg for colour in ("--c0", "--c1", "--c2"))


def test_names_of_close_points_do_not_meet(results: Results) -> None:
    points = [Costed(f"s{i}", f"system {i}", 1e6 * (1 + i / 50), Cell("60", 60.0 + i / 100)) for i in range(6)]
    svg = cost_plot("sts", [*points, Costed("far", "far", 1e6, Cell("10", 10.0))], [p.system for p in points] + ["far"],
                    "parameters", "spearman").svg  # fmt: skip
    places = {}
    for element in ElementTree.fromstring(svg).iter("text"):
        if (element.text or "").startswith("system"):
            found = re.search(r"translate\(([\d.]+) ([\d.]+)\)", element.get("transform") or "")
            at = (
                (float(found[1]), float(found[2]))
                if found
                else (float(element.get("x", 0)), float(element.get("y", 0)))
            )
            places[element.text] = (at, element.get("style") or "")
    assert len(places) == 6
    corners = [at for at, _ in places.values()]
    sides = ["end" in style for _, style in places.values()]
    for i in range(6):
        for j in range(i):
            assert sides[i] != sides[j] or abs(corners[i][1] - corners[j][1]) > 8


@pytest.mark.parametrize(("threshold", "oracle", "lines"), [(None, None, 0), (1.25, 1.25, 1), (1.25, 1.75, 2)])
def test_histogram_marks_its_thresholds(threshold: float | None, oracle: float | None, lines: int) -> None:
    found: dict[str, Any] = {"edges": [0.0, 1.0, 2.0], "true": [0, 0], "false": [3, 1]}
    found |= {"threshold": threshold, "oracle_threshold": oracle}
    svg = similarity_histogram("de-en", found).svg
    assert ("threshold 1.250" in words(svg)) == (threshold is not None)
    assert svg.count("stroke-dasharray") == lines


def test_histograms_share_given_limits() -> None:
    found = {"threshold": None, "edges": [0.0, 1.0, 2.0], "true": [0, 2], "false": [3, 1]}
    assert "8" in words(similarity_histogram("de-en", found, limits=(0.0, 8.0)).svg)
    assert "8" not in words(similarity_histogram("de-en", found).svg)
