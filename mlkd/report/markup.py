"""Tables of scores, heat maps and differences as HTML without style of its own: report.css gives classes their look."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlkd.report.tables import SIGNIFICANT, Cell, Row, Table, format_value
from mlkd.tasks.scoring.bootstrap import Comparison

# So many languages stand beside one another on a desktop screen.
HEAT_COLUMNS = 28
# Fewer numbers than this are read from the table itself.
MIN_HEAT_CELLS = 20
# Shares of the colour from which letters in the page's own colour are easier to read, on dark and on light pages.
_MID, _DEEP = 0.6, 0.85


def to_html(table: Table, names: Mapping[str, str]) -> str:
    """A `<table>` whose classes `mean`, `best` and `tied` carry the emphasis; below it protocol, data and models.

    Args:
        table: what is shown.
        names: system -> title of its column.
    """
    label = "language" if table.of_languages else "metric"
    heads = f'<th scope="col">{label}</th><th scope="col">items</th>'
    for system in table.systems:
        heads += f'<th scope="col" title="{html.escape(system)}">{html.escape(names[system])}</th>'
    body = "\n".join(_html_row(row) for row in table.rows)
    caption = f"{html.escape(table.name)} <span>{html.escape(table.direction)}</span>"
    hashes = "; ".join(f"{names[system]} {sha256}" for system, sha256 in table.model_hashes.items())
    source = "; ".join(filter(None, [table.source, f"models: {hashes}" if hashes else ""]))
    return (
        f"<table><caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        f'<p class="source">{html.escape(source)}</p>'
    )


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Systems down, languages across; `worst` and `best` are the printed ends of the colour scale."""

    title: str
    direction: str
    worst: str
    best: str
    markup: str


def heat_map(table: Table, names: Mapping[str, str]) -> HeatMap | None:
    """Every score as a colour between the table's worst and best; None for small tables and those of one value."""
    values = [cell.value for row in table.rows for cell in row.cells if cell.value is not None]
    many = len(table.rows) * len(table.systems) >= MIN_HEAT_CELLS
    if not (table.of_languages and many and values and max(values) > min(values)):
        return None
    ends = (min(values), max(values)) if table.higher_is_better is not False else (max(values), min(values))
    num_blocks = math.ceil(len(table.rows) / HEAT_COLUMNS)
    size = math.ceil(len(table.rows) / num_blocks)
    blocks = [table.rows[start : start + size] for start in range(0, len(table.rows), size)]
    drawn = "".join(_heat_block(table, block, size, ends, names) for block in blocks)
    worst, best = (format_value(end, table.metric) for end in ends)
    return HeatMap(table.name, table.direction, worst, best, drawn)


def differences_html(title: str, tests: Sequence[Comparison], names: Mapping[str, str]) -> str:
    """A `<tbody>` of `first less second`: difference, interval and p-value, and the interval drawn about zero."""
    low, high = min(0.0, *(test.low for test in tests)), max(0.0, *(test.high for test in tests))
    room = 0.04 * (high - low) or 1.0
    low, high = low - room, high + room

    def percent(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    rows = [f'<tr class="group"><th scope="rowgroup" colspan="5">{html.escape(title)}</th></tr>']
    for test in tests:
        numbers = [
            format_value(value, test.metric).replace("-", "−") for value in (test.difference, test.low, test.high)
        ]
        signed = f"+{numbers[0]}" if test.difference > 0 else numbers[0]
        kind = ' class="sure"' if test.p_holm < SIGNIFICANT else ""
        length = f"{100 * (test.high - test.low) / (high - low):.2f}%"
        rows.append(
            f'<tr{kind}><th scope="row" title="{html.escape(f"{test.first} less {test.second}")}">'
            f"{html.escape(names[test.first])} <i>−</i> {html.escape(names[test.second])}</th>"
            f"<td>{signed}</td><td>[{numbers[1]}, {numbers[2]}]</td><td>{format_p(test.p_holm)}</td>"
            f'<td class="forest"><div><i class="zero" style="left:{percent(0)}"></i>'
            f'<i class="bar" style="left:{percent(test.low)};width:{length}"></i>'
            f'<i class="point" style="left:{percent(test.difference)}"></i></div></td></tr>'
        )
    return f"<tbody>{''.join(rows)}</tbody>"


def format_p(p_value: float) -> str:
    """To two digits, at least to three decimals.

    >>> format_p(0.04312), format_p(0.00009), format_p(1.0)
    ('0.043', '< 0.001', '1.00')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def _html_row(row: Row) -> str:
    cells = []
    for cell in row.cells:
        hover = f' title="95 % interval {cell.brackets}"' if cell.bounds else ""
        kind = ' class="best"' if cell.best else ' class="tied"' if cell.tied else ""
        spread = f"<small>{cell.spread}</small>" if cell.spread else ""
        cells.append(f"<td{kind}{hover}><span>{html.escape(cell.text)}</span>{spread}</td>")
    kind = ' class="mean"' if row.is_mean else ""
    return f'<tr{kind}><th scope="row">{html.escape(row.label)}</th><td>{row.count:,}</td>{"".join(cells)}</tr>'


def _heat_block(
    table: Table, rows: Sequence[Row], size: int, ends: tuple[float, float], names: Mapping[str, str]
) -> str:
    heads = "".join(f'<th scope="col">{html.escape(row.label)}</th>' for row in rows)
    # Blocks below one another keep the width of a language.
    blanks = "<td></td>" * (size - len(rows))
    lines = [f"<tr><th></th>{heads}{blanks}</tr>"]
    for position, system in enumerate(table.systems):
        cells = "".join(_heat_cell(row.label, row.cells[position], ends) for row in rows)
        name = f'<th scope="row" title="{html.escape(system)}">{html.escape(names[system])}</th>'
        lines.append(f"<tr>{name}{cells}{blanks}</tr>")
    return f'<table class="heat" style="--n:{size}">{"".join(lines)}</table>'


def _heat_cell(label: str, cell: Cell, ends: tuple[float, float]) -> str:
    if cell.value is None:
        return f'<td class="none" title="{html.escape(f"{label}: {cell.text}")}">·</td>'
    share = (cell.value - ends[0]) / (ends[1] - ends[0])
    kind = ' class="deep"' if share > _DEEP else ' class="mid"' if share > _MID else ""
    # Whole numbers stay readable in narrow columns; a scale of a few units needs its decimals.
    text = f"{cell.value:.0f}" if abs(ends[1] - ends[0]) >= 10 else cell.text
    hover = html.escape(" ".join(filter(None, [f"{label}: {cell.text}", cell.brackets])))
    return f'<td{kind} style="--p:{100 * share:.0f}%" title="{hover}">{text}</td>'
