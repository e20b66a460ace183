"""Tables of scores, heat maps and differences as HTML: what the macros of macros.html are given."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

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
    hashes = "; ".join(f"{names[system]} {sha256}" for system, sha256 in table.model_hashes.items())
    source = "; ".join(filter(None, [table.source, f"models: {hashes}" if hashes else ""]))
    return str(macros().score_table(table, names, source))


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

    def printed(value: float) -> str:
        return format_value(value, test.metric).replace("-", "−")

    rows = []
    for test in tests:
        signed = printed(test.difference)
        rows.append(
            {
                "first": test.first,
                "second": test.second,
                "first_name": names[test.first],
                "second_name": names[test.second],
                "is_sure": test.p_holm < SIGNIFICANT,
                "difference": f"+{signed}" if test.difference > 0 else signed,
                "low": printed(test.low),
                "high": printed(test.high),
                "p": format_p(test.p_holm),
                "zero_at": percent(0),
                "low_at": percent(test.low),
                "difference_at": percent(test.difference),
                "width": f"{100 * (test.high - test.low) / (high - low):.2f}%",
            }
        )
    return str(macros().difference_rows(title, rows))


def format_p(p_value: float) -> str:
    """To two digits, at least to three decimals.

    >>> format_p(0.04312), format_p(0.00009), format_p(1.0)
    ('0.043', '< 0.001', '1.00')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


@functools.cache
def macros() -> Any:
    """The macros of macros.html; texts are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("mlkd.report").joinpath("macros.html").read_text(encoding="utf-8")).module


def _heat_block(
    table: Table, rows: Sequence[Row], size: int, ends: tuple[float, float], names: Mapping[str, str]
) -> str:
    cells = [[_heat_cell(row.label, row.cells[i], ends) for row in rows] for i in range(len(table.systems))]
    lines = [(system, names[system], cells[i]) for i, system in enumerate(table.systems)]
    return str(macros().heat_block([row.label for row in rows], lines, size))


def _heat_cell(label: str, cell: Cell, ends: tuple[float, float]) -> dict[str, Any]:
    hover = " ".join(filter(None, [f"{label}: {cell.text}", cell.brackets if cell.value is not None else ""]))
    if cell.value is None:
        return {"share": None, "hover": hover}
    share = (cell.value - ends[0]) / (ends[1] - ends[0])
    kind = "deep" if share > _DEEP else "mid" if share > _MID else ""
    # Whole numbers stay readable in narrow columns; a scale of a few units needs its decimals.
    text = f"{cell.value:.0f}" if abs(ends[1] - ends[0]) >= 10 else cell.text
    return {"share": share, "kind": kind, "text": text, "hover": hover}
