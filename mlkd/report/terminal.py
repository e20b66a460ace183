"""Score tables on the terminal: as much of the intervals as fits its width."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, TextIO

from mlkd.report.names import letters, short_names
from mlkd.report.tables import SIGNIFICANT, Cell, Table
from mlkd.runtime.hashing import HASH_DIGITS

if TYPE_CHECKING:
    from rich.table import Table as RichTable

BEST, TIED = "*", "~"
LEGEND = f"{BEST} best in its row"
LEGEND_TIED = f"{TIED} not significantly worse (paired bootstrap, p >= {SIGNIFICANT}, Holm over languages)"
_WIDEST = 10_000


class _Style(StrEnum):
    """How a 95 % interval is shown."""

    brackets = "[low, high] is the 95 % interval"
    spread = "± half the 95 % interval"
    none = ""


def print_tables(tables: Sequence[Table], file: TextIO | None = None) -> None:
    """All tables, each with its protocol and data; below them the systems and what the marks mean.

    Intervals are in brackets where they fit, else as ±, else left out; systems that do not fit beside one another
    stand in blocks below one another. Names that do not fit become letters.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=file or sys.stdout, highlight=False)
    width = console.width
    if not console.is_terminal:
        console.width = _WIDEST  # a pipe has no width: nothing is cut off in a log
    columns = _column_names(tables, width)
    styles: dict[_Style, None] = {}

    def fits(drawn: RichTable) -> bool:
        return console.measure(drawn, options=console.options.update(width=_WIDEST)).maximum <= width

    def draw(table: Table) -> None:
        for style in _Style:
            drawn = _draw(table, columns, style)
            if fits(drawn):
                break
        else:
            if len(table.systems) > 1:
                half = (len(table.systems) + 1) // 2
                draw(_columns(table, slice(None, half)))
                draw(_columns(table, slice(half, None)))
                return
        if table.has_intervals:
            styles[style] = None
        console.print(drawn)

    for i, table in enumerate(tables):
        console.print("\n" * bool(i) + f"[bold]{escape(table.title)}[/bold]", soft_wrap=True)
        draw(table)
        console.print(f"[dim]{escape(table.source)}[/dim]", soft_wrap=True)
    for line in [*_system_lines(tables, columns), *_legend(tables, styles)]:
        console.print(escape(line), soft_wrap=True)


def _column_names(tables: Sequence[Table], width: int) -> dict[str, str]:
    """System -> column title: its short name, or a letter for each where these would not fit the terminal."""
    systems = list(dict.fromkeys(name for table in tables for name in table.systems))
    names = short_names(systems)
    longest = max((len(row.label) for table in tables for row in table.rows), default=0)
    fit = max(longest, 8) + 12 + sum(max(len(name), 9) + 3 for name in names.values()) <= width
    return names if fit else letters(systems)


def _columns(table: Table, part: slice) -> Table:
    """`table` with some of its systems."""
    rows = [replace(row, cells=row.cells[part]) for row in table.rows]
    return replace(table, systems=table.systems[part], models=table.models[part], rows=rows)


def _draw(table: Table, columns: dict[str, str], style: _Style) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("language" if table.of_languages else "metric", no_wrap=True)
    drawn.add_column("items", justify="right", style="dim", no_wrap=True)
    texts = [[_interval(cell, style) for cell in row.cells] for row in table.rows]
    shown = [any(column) for column in zip(*texts, strict=True)]
    for system, has_intervals in zip(table.systems, shown, strict=True):
        drawn.add_column(Text(columns[system]), justify="right", no_wrap=True)
        if has_intervals:
            drawn.add_column("95 %" if style is _Style.brackets else "", style="dim", no_wrap=True)
    for row, intervals in zip(table.rows, texts, strict=True):
        cells = []
        for cell, interval, has_intervals in zip(row.cells, intervals, shown, strict=True):
            look = "bold green" if cell.best else "green" if cell.tied else ""
            cells.append(Text(BEST * cell.best + TIED * cell.tied + cell.text, style=look))
            cells += [Text(interval)] * has_intervals
        drawn.add_row(Text(row.label), f"{row.count}", *cells, style="bold" if row.is_mean else "")
    return drawn


def _interval(cell: Cell, style: _Style) -> str:
    return {_Style.brackets: cell.brackets, _Style.spread: cell.spread, _Style.none: ""}[style]


def _system_lines(tables: Sequence[Table], columns: dict[str, str]) -> list[str]:
    """What each column's title stands for, where it is not all there is to say."""
    models = {name: sha256 for table in tables for name, sha256 in zip(table.systems, table.models, strict=True)}
    lines = []
    for system, title in columns.items():
        full = [system] if title != system else []
        known = [f"model {models[system][:HASH_DIGITS]}"] if models[system] else []
        if full or known:
            lines.append(f"{title} = {', '.join(full + known)}")
    return ["", *lines] if lines else []


def _legend(tables: Sequence[Table], styles: dict[_Style, None]) -> list[str]:
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    parts = [LEGEND] * any(cell.best for cell in cells) + [LEGEND_TIED] * any(cell.tied for cell in cells)
    parts += [style.value for style in styles if style.value]
    return ["; ".join(parts)] if parts else []
