"""Reading the tab-separated tables of this package."""

from __future__ import annotations

from importlib.resources import files


def read_table(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of this package. Lines starting with "# " are remarks."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line and not line.startswith("# ")]
    header, *rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise AssertionError(f"{name}: row {number} has {len(row)} cells, the header has {len(header)}")
    return header, rows
