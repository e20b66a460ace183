"""HTML of tables, heat maps and differences: emphasis, colours, escapes."""

from __future__ import annotations

import re

import pytest

from mlkd.report.markup import HEAT_COLUMNS, differences_html, format_p, heat_map, to_html
from mlkd.report.names import short_names
from mlkd.report.results import Results
from mlkd.report.tables import Table, build_tables
from mlkd.tasks.scoring.scores import Score, TaskResult
from tests.report.conftest import assert_snapshot, compared

NAMES = {"student": "student", "untrained": "untrained", "teacher": "teacher"}


def many_languages(number: int, *, higher_is_better: bool = True, scale: float = 1.0) -> Results:
    """Language n scores n and 100 - n; the last one of the second system is undefined."""
    values = {"a": [scale * n for n in range(number)], "<b>": [scale * (100 - n) for n in range(number - 1)] + [None]}
    results = {
        name: [
            TaskResult(
                "t", "", "m", higher_is_better, "", [Score(f"l{n}", "m", value, 9) for n, value in enumerate(scores)]
            )
        ]
        for name, scores in values.items()
    }
    return Results(systems=list(values), results=results)


def table_of(results: Results) -> Table:
    return build_tables(results)[0]


def test_table_marks_mean_and_best_and_escapes(results: Results) -> None:
    renamed = {"<b>&": results.results["student"], "other": results.results["untrained"]}
    table = table_of(Results(systems=list(renamed), results=renamed))
    html = to_html(table, short_names(table.systems))
    assert "<b>" not in html
    assert_snapshot("table.html", html)


def test_table_says_where_its_numbers_are_from(checkpoints: Results) -> None:
    html = to_html(table_of(checkpoints), short_names(checkpoints.systems))
    assert_snapshot("table_of_checkpoints.html", html)


def test_heat_map_is_for_tables_that_are_too_large_to_read(results: Results) -> None:
    assert heat_map(table_of(results), NAMES) is None
    assert heat_map(table_of(many_languages(9)), {"a": "a", "<b>": "b"}) is None
    assert heat_map(table_of(many_languages(10)), {"a": "a", "<b>": "b"}) is not None


def test_heat_map_runs_from_worst_to_best() -> None:
    names = {"a": "a", "<b>": "<b>"}
    found = heat_map(table_of(many_languages(40)), names)
    assert found is not None and (found.worst, found.best) == ("0", "100")
    assert "<b>" not in found.markup
    assert_snapshot("heat_map.html", found.markup)
    lower = heat_map(table_of(many_languages(40, higher_is_better=False)), names)
    assert lower is not None and (lower.worst, lower.best) == ("100", "0")
    assert_snapshot("heat_map_lower_is_better.html", lower.markup)


def test_heat_map_keeps_decimals_where_whole_numbers_would_be_alike() -> None:
    found = heat_map(table_of(many_languages(10, scale=0.01)), {"a": "a", "<b>": "b"})
    assert found is not None and ">0.03<" in found.markup and ">1<" in found.markup


@pytest.mark.parametrize("number", [28, 29, 112, 113])
def test_every_language_is_in_one_block_and_blocks_are_even(number: int) -> None:
    found = heat_map(table_of(many_languages(number)), {"a": "a", "<b>": "b"})
    assert found is not None
    assert re.findall(r'<th scope="col">(l\d+)</th>', found.markup) == [f"l{n}" for n in range(number)]
    blocks = found.markup.split("<table")[1:]
    assert len(blocks) == -(-number // HEAT_COLUMNS)
    for block in blocks:
        rows = re.findall(r"<tr>(.*?)</tr>", block)
        assert len(rows) == 3 and len({len(re.findall("<t[hd]", row)) for row in rows}) == 1


def test_equal_scores_need_no_heat_map() -> None:
    assert heat_map(table_of(many_languages(40, scale=0.0)), {"a": "a", "<b>": "b"}) is None


def test_differences_are_drawn_about_zero() -> None:
    tests = [
        compared("bucc", "mean", "student", "teacher", 10.0, p_value=0.04),
        compared("bucc", "mean", "student", "untrained", -5.0, p_value=0.3),
    ]
    html = differences_html("bucc <f1>", tests, NAMES)
    first, second = html.split("<tr")[2:]
    assert "bucc &lt;f1&gt;" in html
    assert first.startswith(' class="sure"') and not second.startswith(" class")
    assert_snapshot("differences.html", html)
    # From -15 to 20 and 4 % of that to either side: 35 * 1.08 = 37.8 wide, and zero is 16.4 from its left end.
    assert 'class="zero" style="left:43.39%"' in first and 'class="point" style="left:69.84%"' in first
    assert 'class="bar" style="left:3.70%;width:52.91%"' in second


@pytest.mark.parametrize(("p", "text"), [(0.0009, "< 0.001"), (0.001, "0.001"), (0.0999, "0.100"), (0.5, "0.50")])
def test_p_values(p: float, text: str) -> None:
    assert format_p(p) == text
