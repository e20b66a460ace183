"""What is shown of several systems: sizes, costs, differences, histograms."""

from __future__ import annotations

import re

from mlkd.report.comparison import cost_plots, differences, histograms, system_rows
from mlkd.report.names import short_names
from mlkd.report.results import Results
from mlkd.report.tables import build_tables
from tests.report.conftest import bucc, compared, efficiency, tatoeba


def pairs(html: str) -> list[tuple[str, str]]:
    return [(a, b) for a, b in re.findall(r'title="([^"]*?) less ([^"]*?)"', html)]


def test_sizes_are_what_was_measured_or_else_described(checkpoints: Results) -> None:
    checkpoints.describe[checkpoints.systems[2]] |= {"parameters": 5000}
    first, second, third = system_rows(checkpoints, short_names(checkpoints.systems))
    assert first == {
        "name": "small",
        "full": "outputs/small/2026-01-31_12-00-00",
        "model": "0f0f0f0f0f0f",
        "parameters": "1,000,000",
        "parameters_without_embeddings": "500,000",
        "dimension": "384",
        "speed": "900",
    }
    assert (second["speed"], third["parameters"], third["parameters_without_embeddings"]) == ("90", "5,000", "")


def test_costs_need_two_systems_that_differ_in_them(checkpoints: Results, results: Results) -> None:
    names = short_names(checkpoints.systems)
    titles = [title for title, _ in cost_plots(checkpoints, build_tables(checkpoints), names)]
    assert titles == ["tatoeba accuracy (%)"] * 2 + ["bucc f1 (%)"] * 2
    assert cost_plots(results, build_tables(results), short_names(results.systems)) == []
    results.describe = {name: {"parameters_without_embeddings": 7} for name in results.systems}
    assert cost_plots(results, build_tables(results), short_names(results.systems)) == []
    results.describe["teacher"]["parameters_without_embeddings"] = 70
    svg = cost_plots(results, build_tables(results), short_names(results.systems))[0][1]
    assert "parameters without embeddings" in svg and ">teacher<" in svg


def test_a_cost_of_zero_is_not_on_a_logarithmic_axis(checkpoints: Results) -> None:
    checkpoints.results[checkpoints.systems[0]][2] = efficiency(0.0, 900.0)
    names = short_names(checkpoints.systems)
    drawn = [svg for _, svg in cost_plots(checkpoints, build_tables(checkpoints), names)]
    assert len(drawn) == 2 and all("sentences per second" in svg for svg in drawn)


def test_differences_of_checkpoints_have_the_better_one_first(checkpoints: Results) -> None:
    names = short_names(checkpoints.systems)
    small, other = checkpoints.systems[0], "somebody/&lt;b&gt;"
    found = differences(checkpoints, build_tables(checkpoints), names)
    assert [pairs(html) for html in found] == [[(small, other)], [(small, other)]]
    checkpoints.results[checkpoints.systems[1]][1] = bucc(99.0)
    found = differences(checkpoints, build_tables(checkpoints), names)
    assert pairs(found[1]) == [(other, small)] and "−35.5" in found[1]


def test_differences_of_a_run_are_the_students(tested: Results) -> None:
    tested.comparisons += [
        compared("bucc", "mean", "untrained", "teacher", -20.0, p_value=0.001),
        compared("bucc", "mean", "teacher", "student", -35.5, p_value=0.21),
    ]
    found = differences(tested, build_tables(tested), short_names(tested.systems))
    assert [pairs(html) for html in found] == [[("student", "teacher")], [("student", "teacher")]]


def test_of_many_systems_the_best_is_set_against_each(results: Results) -> None:
    many = {f"s{i}": [tatoeba(1.0, 1.0, 10.0 + i)] for i in range(5)}
    tests = [compared("tatoeba", "mean", f"s{i}", f"s{j}", i - j, p_value=0.5) for i in range(5) for j in range(i)]
    found = Results(systems=list(many), results=many, comparisons=tests)
    (html,) = differences(found, build_tables(found), short_names(found.systems))
    assert pairs(html) == [("s4", "s3"), ("s4", "s2"), ("s4", "s1"), ("s4", "s0")]


def test_histograms_of_a_student_alone_or_of_all(results: Results, checkpoints: Results) -> None:
    (own,) = histograms(results, short_names(results.systems))
    assert (own.system, own.is_open) == ("student", True)
    assert [(title, counts) for title, counts, _ in own.drawings] == [("bucc de-en", "12 true and 59 false")]
    assert [found.system for found in histograms(checkpoints, short_names(checkpoints.systems))] == ["small", "<b>"]
    many = {f"s{i}": [bucc(1.0)] for i in range(5)}
    found = histograms(Results(systems=list(many), results=many), {name: name for name in many})
    assert [each.is_open for each in found] == [True, True, True, False, False]


def test_histograms_of_one_pair_share_their_axis(checkpoints: Results) -> None:
    other = checkpoints.results[checkpoints.systems[1]][1].details["mining"]["de-en"]
    other["edges"] = [1.0, 3.0, 5.0, 7.0]
    first, second = histograms(checkpoints, short_names(checkpoints.systems))
    ticks = [
        [word for word in re.findall(r">(\d+)<", found.drawings[0][2]) if int(word) < 10] for found in (first, second)
    ]
    assert "6" in ticks[0] and "6" in ticks[1]
