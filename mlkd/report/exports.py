"""Score tables as files: Markdown, CSV in long form, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlkd.report.names import letters, short_names
from mlkd.report.results import Results
from mlkd.report.tables import SIGNIFICANT, Cell, Table, build_tables
from mlkd.runtime.atomic_files import write_text

CSV_HEADER = [
    "task", "protocol", "data_sha256", "language", "metric",
    "system", "model_sha256", "value", "low", "high", "count",
]  # fmt: skip
_TEST = f"paired bootstrap, p >= {SIGNIFICANT}, Holm over languages"
# A page holds about this many rows; longer tables break across pages, and so many systems leave no room for brackets.
_ROWS_OF_A_PAGE = 40
_MAX_BRACKETED_SYSTEMS = 3
# Letters that the titles of columns may have together on a page of paper.
_MAX_TITLES = 45
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    # Behind a line's end these two would be read as its arguments.
    "[": "{[}", "*": "{*}", "±": r"$\pm$", "\n": " ",
}  # fmt: skip


def write_tables(folder: Path, results: Results) -> list[Table]:
    """Write results.md, results.tex (main scores) and results.csv (all scores); returns the tables of the former."""
    tables = build_tables(results)
    write_text(folder / "results.md", to_markdown(tables))
    write_text(folder / "results.tex", to_latex(tables))
    write_text(folder / "results.csv", to_csv(results))
    return tables


def to_markdown(tables: Sequence[Table]) -> str:
    """Best values and the word `mean` in bold, values that no test tells from the best in italics."""
    return "\n".join(_markdown_table(table) for table in tables)


def to_latex(tables: Sequence[Table]) -> str:
    """A `table` each, a `longtable` where a page is too short; best values in bold, equally good ones underlined."""
    packages = "% needs \\usepackage{booktabs,longtable}\n"
    return "\n".join([packages, *(_latex_table(table) for table in tables)])


def to_csv(results: Results) -> str:
    """One line for each score of each system, unrounded; an empty value is an undefined score."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for key, values in results.rows().items():
        for system, value in values.items():
            low, high = (results.interval(key, system) or (None, None)) if value is not None else (None, None)
            model = results.describe.get(system, {}).get("sha256") or ""
            numbers = ["" if number is None else repr(float(number)) for number in (value, low, high)]
            scored = [key.task, key.protocol, key.data_sha256, key.language, key.metric]
            writer.writerow([*scored, system, model, *numbers, key.count])
    return stream.getvalue()


def _markdown_table(table: Table) -> str:
    names = short_names(table.systems)
    heads = ["language" if table.of_languages else "metric", "items", *(names[system] for system in table.systems)]
    heads = [_markdown(head) for head in heads]
    lines = [f"### {table.title}", "", f"| {' | '.join(heads)} |", "|:---|" + "---:|" * (len(heads) - 1)]
    for row in table.rows:
        label = f"**{row.label}**" if row.is_mean else _markdown(row.label)
        lines.append(f"| {' | '.join([label, str(row.count), *map(_markdown_cell, row.cells)])} |")
    return "\n".join([*lines, "", *(f"{note}  " for note in _notes(table, names, "**bold**", "_italics_")), ""])


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else f"_{cell.text}_" if cell.tied else cell.text
    return f"{text} {cell.brackets}".rstrip()


def _markdown(text: str) -> str:
    return text.replace("|", "\\|")


def _notes(table: Table, names: Mapping[str, str], best: str, tied: str) -> list[str]:
    """What must be read with the table: protocol and data, models, marks."""
    hashes = table.model_hashes
    models = [
        f"{names[system]} = {', '.join(filter(None, [system if names[system] != system else '', hashes.get(system)]))}"
        for system in table.systems
        if names[system] != system or system in hashes
    ]
    cells = [cell for row in table.rows for cell in row.cells]
    marks = [f"{best}: best of its row"] * any(cell.best for cell in cells)
    marks += [f"{tied}: not significantly worse ({_TEST})"] * any(cell.tied for cell in cells)
    marks += ["brackets or ±: 95 % bootstrap interval"] * table.has_intervals
    return list(filter(None, [table.source, "; ".join(models), "; ".join(marks)]))


def _latex_table(table: Table) -> str:
    names = short_names(table.systems)
    if sum(map(len, names.values())) > _MAX_TITLES:
        names = letters(table.systems)
    heads = ["language" if table.of_languages else "metric", "items", *(names[system] for system in table.systems)]
    head = " & ".join(map(_latex, heads)) + r" \\"
    bracketed = len(table.systems) <= _MAX_BRACKETED_SYSTEMS
    body = []
    for row in table.rows:
        if row.is_mean and len(table.rows) > 1:
            body.append(r"\midrule")
        cells = [_latex(row.label), f"{row.count:,}", *(_latex_cell(cell, bracketed=bracketed) for cell in row.cells)]
        body.append(" & ".join(cells) + r" \\")
    notes = ". ".join([table.title, *_notes(table, names, "bold", "underlined")])
    caption = rf"\caption{{{_latex(notes)}.}}"
    columns = "l" + "r" * (len(heads) - 1)
    if len(body) > _ROWS_OF_A_PAGE:
        return "\n".join([
            rf"\begin{{longtable}}{{{columns}}}", caption + r" \\", r"\toprule", head, r"\midrule", r"\endfirsthead",
            r"\toprule", head, r"\midrule", r"\endhead",
            *body, r"\bottomrule", r"\end{longtable}", "",
        ])  # fmt: skip
    return "\n".join([
        r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def _latex_cell(cell: Cell, *, bracketed: bool) -> str:
    text = _latex(cell.text)
    if text.startswith("-") and cell.value is not None:
        text = f"${text[0]}${text[1:]}"
    text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.tied else text
    interval = cell.brackets if bracketed else cell.spread
    return rf"{text} {{\scriptsize {_latex(interval)}}}" if interval else text


def _latex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)
