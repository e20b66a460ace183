"""Tables in a pipe and on narrow terminals."""

from __future__ import annotations

import io
import re

import pytest

from mlkd.report.results import Results
from mlkd.report.tables import build_tables
from mlkd.report.terminal import print_tables

PIPED = """\
tatoeba accuracy (%), higher is better
language  items  student  95 %          untrained  teacher
──────────────────────────────────────────────────────────
de         1000    *63.1  [60.0, 66.0]        1.0     41.0
fr         1000    *70.0                undefined    *70.0
mean       2000    *66.6                undefined     55.5
protocol laser; data abababababab

student = model 0f0f0f0f0f0f
* best in its row; [low, high] is the 95 % interval
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(results: Results, monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    for name, value in (("COLUMNS", str(columns)), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    written = Terminal()
    print_tables(build_tables(results), written)
    return re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())


def test_piped_table_is_exactly_this(results: Results) -> None:
    written = io.StringIO()
    print_tables(build_tables(results)[:1], written)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert "\n".join(lines) + "\n" == PIPED


def test_ties_are_marked_and_explained(checkpoints: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(checkpoints, monkeypatch, 140)
    assert "~65.5" in text and "*66.6" in text
    assert "~ not significantly worse (paired bootstrap, p >= 0.05, Holm over languages)" in text
    assert "small = outputs/small/2026-01-31_12-00-00, model 0f0f0f0f0f0f" in text


def test_long_names_become_letters_within_80_columns(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {f"outputs/some/long/folder/name-of-many-letters-{i}": r for i, r in enumerate(results.results.values())}
    text = printed(Results(systems=list(renamed), results=renamed), monkeypatch, 80)
    tables, names = text.split("\nA = ")
    assert max(map(len, tables.splitlines())) <= 80
    assert names.startswith("outputs/some/long/folder/name-of-many-letters-0\n")
    assert "63.1" in text and "undefined" in text and "…" not in text


def test_the_narrower_the_shorter_the_intervals(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "*63.1  [60.0, 66.0]" in printed(results, monkeypatch, 60)
    assert "*63.1  ±3.0" in printed(results, monkeypatch, 46)
    narrow = printed(results, monkeypatch, 38)
    assert "63.1" in narrow and "±" not in narrow and "[60.0" not in narrow


def test_systems_that_do_not_fit_stand_in_blocks(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"system-{i}": results.results["student"][1:2] for i in range(12)}
    text = printed(Results(systems=list(many), results=many), monkeypatch, 50)
    tables = text.split("\nA = ")[0]
    assert max(map(len, tables.splitlines()[1:])) <= 50
    assert tables.count("language") > 1 and tables.count("55.5") == 2 * 12
