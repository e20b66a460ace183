"""The model of the tables: values as printed, best and tied ones, metrics of no language."""

from __future__ import annotations

import math

from mlkd.report.results import Results
from mlkd.report.tables import Table, build_tables
from tests.report.conftest import compared


def marks(table: Table, label: str) -> list[str]:
    row = next(row for row in table.rows if row.label == label)
    return ["best" if cell.best else "tied" if cell.tied else "" for cell in row.cells]


def test_one_table_for_each_main_metric(results: Results) -> None:
    tables = build_tables(results)
    assert [table.title for table in tables] == [
        "tatoeba accuracy (%), higher is better",
        "bucc f1 (%), higher is better",
        "mse (x100), lower is better",
    ]
    assert tables[0].source == "protocol laser; data abababababab"
    assert tables[0].model_hashes == {"student": "0f0f0f0f0f0f"}
    assert [row.label for row in tables[0].rows] == ["de", "fr", "mean"]
    assert tables[2].systems == ["student", "untrained"]


def test_values_as_printed_and_as_they_are(results: Results) -> None:
    student, untrained, teacher = build_tables(results)[0].rows[0].cells
    assert (student.text, student.value, student.interval) == ("63.1", 63.14, (60.0, 66.04))
    assert (student.brackets, student.spread) == ("[60.0, 66.0]", "±3.0")
    assert (untrained.text, untrained.brackets, untrained.spread) == ("1.0", "", "")
    mean = build_tables(results)[0].rows[2].cells[1]
    assert (mean.text, mean.value) == ("undefined", None)
    assert teacher.text == "41.0"


def test_best_is_compared_as_printed(results: Results) -> None:
    table = build_tables(results)[0]
    assert marks(table, "fr") == ["best", "", "best"]
    assert marks(build_tables(results)[2], "mean") == ["best", ""]


def test_tied_where_the_corrected_test_does_not_tell_it_from_the_best(checkpoints: Results) -> None:
    table = build_tables(checkpoints)[0]
    assert marks(table, "mean") == ["best", "tied", ""]
    assert marks(table, "de") == ["best", "", ""]
    assert marks(table, "fr") == ["best", "best", ""]
    assert marks(build_tables(checkpoints)[1], "de-en") == ["best", ""]  # not tested
    assert marks(build_tables(checkpoints)[1], "mean") == ["best", ""]


def test_the_test_against_the_best_decides_whoever_is_first_in_it(results: Results) -> None:
    results.comparisons = [compared("bucc", "mean", "teacher", "student", -35.5, p_value=0.05)]
    assert marks(build_tables(results)[1], "mean") == ["best", "", "tied"]
    results.comparisons = [compared("bucc", "mean", "teacher", "untrained", 20.0, p_value=0.9)]
    assert marks(build_tables(results)[1], "mean") == ["best", "", ""]


def test_a_lone_system_is_not_the_best(results: Results) -> None:
    only = Results(systems=["student"], results={"student": results.results["student"]})
    cells = [cell for table in build_tables(only) for row in table.rows for cell in row.cells]
    assert cells and not any(cell.best or cell.tied for cell in cells)


def test_secondary_metrics_come_on_request_and_claim_no_direction(results: Results) -> None:
    table = next(table for table in build_tables(results, main_only=False) if table.metric == "xx->en")
    assert table.title == "tatoeba xx->en (%)"
    assert marks(table, "de") == ["", "", ""]
    assert all(table.metric != "xx->en" for table in build_tables(results))


def test_a_system_without_a_score_has_a_dash(results: Results) -> None:
    results.results["teacher"][0].scores.pop(2)
    row = build_tables(results)[0].rows[1]
    assert [cell.text for cell in row.cells] == ["70.0", "undefined", "-"]
    assert not any(cell.best for cell in row.cells)


def test_metrics_of_no_language_stand_below_one_another(checkpoints: Results) -> None:
    table = build_tables(checkpoints)[2]
    assert table.title == "efficiency, higher is better for sentences per s"
    assert [row.label for row in table.rows] == ["sentences per s", "parameters", "parameters without embeddings"]
    assert [cell.text for cell in table.rows[1].cells] == ["1,000,000", "20,000,000", "undefined"]
    assert marks(table, "sentences per s") == ["best", "", ""]
    assert marks(table, "parameters") == ["", "", ""]
    assert table.mean is None


def test_a_number_that_is_none_is_undefined(results: Results) -> None:
    first = results.results["student"][1].scores
    first[0] = type(first[0])("de-en", "f1", math.nan, 12)
    assert build_tables(results)[1].rows[0].cells[0].text == "undefined"
