"""Score tables: one model, drawn as Markdown, for the terminal and as HTML."""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from mlkd.report.results import Results, ScoreKey

if TYPE_CHECKING:
    from rich.table import Table as RichTable

UNDEFINED = "undefined"
NOT_SCORED = "-"
MEAN = "mean"
# How the field prints each metric, and to how many decimals.
UNITS = {
    "accuracy": ("%", 1),
    "f1": ("%", 1),
    "precision": ("%", 1),
    "recall": ("%", 1),
    "oracle_f1": ("%", 1),
    "xx->en": ("%", 1),
    "en->xx": ("%", 1),
    "error_rate": ("%", 1),
    "spearman": ("x100", 1),
    "pearson": ("x100", 1),
    "mse": ("x100", 3),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One language: printed values in the order of the table's systems, which are the best, and 95 % intervals."""

    language: str
    count: int
    cells: list[str]
    best: list[bool]
    intervals: list[tuple[float, float] | None]

    @property
    def is_mean(self) -> bool:
        return self.language == MEAN


@dataclass(frozen=True, slots=True)
class Table:
    """One task and metric: languages down, systems across, the mean last."""

    task: str
    metric: str
    protocol: str
    higher_is_better: bool | None
    systems: list[str]
    rows: list[Row]

    @property
    def name(self) -> str:
        """E.g. `tatoeba accuracy (%)`."""
        return metric_name(self.task, self.metric)

    @property
    def terms(self) -> str:
        """E.g. `higher is better; protocol laser`."""
        directions = {True: "higher is better", False: "lower is better", None: ""}
        protocol = f"protocol {self.protocol}" if self.protocol else ""
        return "; ".join(filter(None, [directions[self.higher_is_better], protocol]))

    @property
    def title(self) -> str:
        """E.g. `tatoeba accuracy (%), higher is better; protocol laser`: unit and direction are said here, once."""
        return ", ".join(filter(None, [self.name, self.terms]))


def metric_name(task: str, metric: str) -> str:
    """Task, metric and unit.

    >>> metric_name("tatoeba", "accuracy"), metric_name("mse", "mse"), metric_name("lm", "perplexity")
    ('tatoeba accuracy (%)', 'mse (x100)', 'lm perplexity')
    """
    unit = UNITS.get(metric, ("", 0))[0]
    return f"{task if task == metric else f'{task} {metric}'}{f' ({unit})' if unit else ''}"


def build_tables(results: Results, *, main_only: bool = True) -> list[Table]:
    """One table for each task, protocol, data set and metric; `main_only` leaves out secondary metrics."""
    groups: dict[tuple[str, str, str, str], dict[ScoreKey, dict[str, float | None]]] = {}
    for key, values in results.rows().items():
        if key.main or not main_only:
            group = (key.task, key.protocol, key.data_sha256, key.metric)
            groups.setdefault(group, {})[key] = values
    return [_build_table(rows, results) for rows in groups.values()]


def format_value(value: float | None, metric: str) -> str:
    """The value as tables print it.

    >>> format_value(63.149, "accuracy"), format_value(None, "spearman"), format_value(0.12346, "perplexity")
    ('63.1', 'undefined', '0.1235')
    """
    if value is None:
        return UNDEFINED
    return f"{value:.{UNITS[metric][1]}f}" if metric in UNITS else f"{value:.4g}"


def to_markdown(tables: list[Table]) -> str:
    """The content of results.md: best values and the word `mean` in bold, 95 % intervals in brackets."""
    return "\n".join(_markdown_table(table) for table in tables)


def to_html(table: Table) -> str:
    """A `<table>` without style; classes `mean` and `best` carry the emphasis."""
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["language", "items", *table.systems])
    body = "\n".join(_html_row(row, table.metric) for row in table.rows)
    caption = f"{html.escape(table.name)} <span>{html.escape(table.terms)}</span>"
    return f"<table><caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def print_tables(tables: list[Table], file: TextIO | None = None) -> None:
    """Tables for the terminal; in a pipe, where bold is lost, the best values have a `*`.

    95 % intervals are in brackets where they fit; names that do not fit become letters, explained below.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=file or sys.stdout, highlight=False)
    width, marks = console.width, not console.is_terminal
    if not console.is_terminal:
        console.width = 10_000  # a pipe has no width: nothing is cut off in a log
    columns = _column_names(tables, width)
    for i, table in enumerate(tables):
        drawn = _terminal_table(table, columns, marks=marks, intervals=True)
        if console.measure(drawn, options=console.options.update(width=10_000)).maximum > width:
            drawn = _terminal_table(table, columns, marks=marks, intervals=False)
        console.print("\n" * bool(i) + f"[bold]{escape(table.title)}[/bold]", soft_wrap=True)
        console.print(drawn)
    for name, short in columns.items():
        if name != short:
            console.print(f"{short} = {escape(name)}", soft_wrap=True)
    if marks and any(True in row.best for table in tables for row in table.rows):
        console.print("* best in its row")


def _build_table(rows: dict[ScoreKey, dict[str, float | None]], results: Results) -> Table:
    first = next(iter(rows))
    systems = [name for name in results.systems if any(name in values for values in rows.values())]
    ordered = sorted(rows.items(), key=lambda item: item[0].language == MEAN)  # stable: the mean goes last
    built = [_build_row(key, values, systems, results) for key, values in ordered]
    return Table(first.task, first.metric, first.protocol, first.higher_is_better, systems, built)


def _build_row(key: ScoreKey, values: dict[str, float | None], systems: list[str], results: Results) -> Row:
    cells = [format_value(values[name], key.metric) if name in values else NOT_SCORED for name in systems]
    defined = [value for value in values.values() if value is not None]
    best = ""
    if key.higher_is_better is not None and len(defined) > 1:
        best = format_value(max(defined) if key.higher_is_better else min(defined), key.metric)
    # Compared as printed: of two equal numbers on the page neither may look better than the other.
    marks = [cell == best for cell in cells]
    intervals = [results.interval(key, name) if values.get(name) is not None else None for name in systems]
    return Row(key.language, key.count, cells, marks, intervals)


def _format_interval(bounds: tuple[float, float] | None, metric: str) -> str:
    return f" [{format_value(bounds[0], metric)}, {format_value(bounds[1], metric)}]" if bounds else ""


def _markdown_table(table: Table) -> str:
    heads = [name.replace("|", "\\|") for name in ["language", "items", *table.systems]]
    lines = [f"### {table.title}", "", f"| {' | '.join(heads)} |", "|:---|" + "---:|" * (len(heads) - 1)]
    for row in table.rows:
        label = f"**{row.language}**" if row.is_mean else row.language
        cells = [
            (f"**{cell}**" if best else cell) + _format_interval(bounds, table.metric)
            for cell, best, bounds in zip(row.cells, row.best, row.intervals, strict=True)
        ]
        lines.append(f"| {' | '.join([label, str(row.count), *cells])} |")
    return "\n".join([*lines, ""])


def _html_row(row: Row, metric: str) -> str:
    cells = []
    for cell, best, bounds in zip(row.cells, row.best, row.intervals, strict=True):
        hover = f' title="95 % interval{_format_interval(bounds, metric)}"' if bounds else ""
        kind = ' class="best"' if best else ""
        cells.append(f"<td{kind}{hover}>{html.escape(cell)}</td>")
    kind = ' class="mean"' if row.is_mean else ""
    return f'<tr{kind}><th scope="row">{html.escape(row.language)}</th><td>{row.count:,}</td>{"".join(cells)}</tr>'


def _column_names(tables: list[Table], width: int) -> dict[str, str]:
    """System -> column title: its name, or A, B, ... for all where the names would not fit the terminal."""
    names = list(dict.fromkeys(name for table in tables for name in table.systems))
    if 24 + sum(max(len(name), 9) + 3 for name in names) <= width:
        return {name: name for name in names}
    return {name: chr(ord("A") + i) if i < 26 else f"S{i + 1}" for i, name in enumerate(names)}


def _terminal_table(table: Table, columns: dict[str, str], *, marks: bool, intervals: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("language")
    drawn.add_column("items", justify="right", style="dim")
    texts = [[_format_interval(bounds, table.metric).strip() for bounds in row.intervals] for row in table.rows]
    shown = [intervals and any(column) for column in zip(*texts, strict=True)]
    for system, has_intervals in zip(table.systems, shown, strict=True):
        drawn.add_column(Text(columns[system]), justify="right", no_wrap=True)
        if has_intervals:
            drawn.add_column(Text("95 %"), style="dim", no_wrap=True)
    for row, bounds in zip(table.rows, texts, strict=True):
        cells = []
        for cell, best, interval, has_intervals in zip(row.cells, row.best, bounds, shown, strict=True):
            cells.append(Text("*" * (marks and best) + cell, style="bold green" if best else ""))
            cells += [Text(interval)] * has_intervals
        drawn.add_row(Text(row.language), str(row.count), *cells, style="bold" if row.is_mean else "")
    return drawn
