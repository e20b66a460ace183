"""Tables: exact Markdown, the terminal at 80 columns and in a pipe, HTML."""

from __future__ import annotations

import io

import pytest

from mlkd.report.results import Results
from mlkd.report.tables import build_tables, print_tables, to_html, to_markdown

MARKDOWN = """\
### tatoeba accuracy (%), higher is better; protocol laser

| language | items | student | untrained | teacher |
|:---|---:|---:|---:|---:|
| de | 1000 | **63.1** [60.0, 66.0] | 1.0 | 41.0 |
| fr | 1000 | **70.0** | undefined | **70.0** |
| **mean** | 2000 | **66.6** | undefined | 55.5 |

### bucc f1 (%), higher is better; protocol oracle, laser, k=4

| language | items | student | untrained | teacher |
|:---|---:|---:|---:|---:|
| de-en | 12 | **55.5** | 0.0 | 20.0 |
| **mean** | 12 | **55.5** | 0.0 | 20.0 |

### mse (x100), lower is better; protocol x100

| language | items | student | untrained |
|:---|---:|---:|---:|
| de | 500 | **0.123** | 0.900 |
| **mean** | 500 | **0.123** | 0.900 |
"""

PIPED = """\
tatoeba accuracy (%), higher is better; protocol laser
language  items  student  95 %          untrained  teacher
──────────────────────────────────────────────────────────
de         1000    *63.1  [60.0, 66.0]        1.0     41.0
fr         1000    *70.0                undefined    *70.0
mean       2000    *66.6                undefined     55.5
"""


def test_markdown_is_exactly_this(results: Results) -> None:
    assert to_markdown(build_tables(results)) == MARKDOWN


def test_secondary_metrics_come_on_request_and_claim_no_direction(results: Results) -> None:
    tables = build_tables(results, main_only=False)
    table = next(table for table in tables if table.metric == "xx->en")
    assert table.title == "tatoeba xx->en (%), protocol laser"
    assert table.rows[0].best == [False, False, False]
    assert all(table.metric != "xx->en" for table in build_tables(results))


def test_a_system_without_a_score_has_a_dash(results: Results) -> None:
    results.results["teacher"][0].scores.pop(2)
    row = build_tables(results)[0].rows[1]
    assert (row.language, row.cells, row.best) == ("fr", ["70.0", "undefined", "-"], [False, False, False])


def test_piped_table_is_exactly_this(results: Results) -> None:
    written = io.StringIO()
    print_tables(build_tables(results)[:1], written)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert "\n".join(lines) + "\n" == PIPED + "* best in its row\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_names_become_letters_within_80_columns(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "80"), ("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    renamed = {f"outputs/some/long/folder/name-{i}": r for i, r in enumerate(results.results.values())}
    written = Terminal()
    print_tables(build_tables(Results(systems=list(renamed), results=renamed)), written)
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "A = outputs/some/long/folder/name-0\n" in text
    assert "63.1" in text and "undefined" in text and "…" not in text


def test_html_marks_mean_and_best_and_escapes(results: Results) -> None:
    renamed = {"<b>&": results.results["student"], "other": results.results["untrained"]}
    html = to_html(build_tables(Results(systems=list(renamed), results=renamed))[0])
    assert '<th scope="col">&lt;b&gt;&amp;</th>' in html and "<b>" not in html
    assert '<tr class="mean"><th scope="row">mean</th><td>2,000</td><td>66.6</td><td>undefined</td></tr>' in html
    assert '<td class="best" title="95 % interval [60.0, 66.0]">63.1</td>' in html


def test_markdown_escapes_bars(results: Results) -> None:
    only = Results(systems=["a|b"], results={"a|b": results.results["student"]})
    assert "| language | items | a\\|b |" in to_markdown(build_tables(only))
