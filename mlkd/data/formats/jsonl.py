"""Records of JSON lines and Parquet files: text columns, by name, dots for nested ones (`translation.de`)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlkd.data.formats.tsv import OnBadUtf8, Table, clean_cells, raise_first, read_lines
from mlkd.errors import MlkdError, Problem, did_you_mean, fail

_HASH_BLOCK_BYTES = 1 << 20


def read_jsonl(path: str | Path, columns: Sequence[str], *, on_bad_utf8: OnBadUtf8 = OnBadUtf8.error) -> Table:
    """Read text values of the keys `columns` from a file with one JSON object a line; null is empty text, counted.

    Raises:
        MlkdError: E309 not JSON, a missing key or a value that is not text, and what `read_lines` raises.
    """
    text = read_lines(path, on_bad_utf8=on_bad_utf8)
    values: dict[str, list[str]] = {column: [] for column in columns}
    line_numbers, problems = [], []
    for number, line in enumerate(text.lines, start=1):
        if number - 1 in text.skipped:
            continue
        if not line.strip():
            text.cleaned["blank_line"] += 1
            continue
        row = _parse_row(line, columns)
        if isinstance(row, str):
            problems.append(Problem("E309", row, f"{path}:{number}"))
            continue
        line_numbers.append(number)
        for column, value in zip(columns, row, strict=True):
            text.cleaned["null"] += value is None
            values[column].append(value or "")
    raise_first(problems, "lines of this file have problems")
    text.cleaned += Counter()  # drops counts of zero
    cleaned_values = {column: clean_cells(cells, text.cleaned) for column, cells in values.items()}
    return Table(cleaned_values, line_numbers, text.cleaned, text.sha256)


def _parse_row(line: str, columns: Sequence[str]) -> list[str | None] | str:
    """The wanted values of one line, or what is wrong with it."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}, column {error.colno})"
    except RecursionError:
        return "not JSON (nested too deeply)"
    if not isinstance(record, dict):
        return f'not a JSON object but {type(record).__name__}; expected {{"{columns[0]}": ...}}'
    row: list[str | None] = []
    for column in columns:
        value, found = _look_up(record, column)
        if not found:
            return f"missing key '{column}'; keys found: {', '.join(map(str, record))}.{did_you_mean(column, record)}"
        if value is not None and not isinstance(value, str):
            return f"the value of '{column}' is {type(value).__name__}, not text"
        row.append(value)
    return row


def _look_up(record: dict[str, Any], column: str) -> tuple[Any, bool]:
    if column in record:
        return record[column], True
    value: Any = record
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return None, False
        value = value[key]
    return value, True


def _check_columns(path: Path, columns: Sequence[str], names: list[str], table: Any) -> None:
    import pyarrow as pa

    problems = []
    for column in columns:
        if column not in table.column_names:
            what = f"column '{column}' missing; columns: {', '.join(names)}.{did_you_mean(column, names)}"
            problems.append(Problem("E310", what, str(path), "name it: data.source_column=... data.target_column=..."))
            continue
        kind = table.schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            problems.append(Problem("E310", f"column '{column}' holds {kind}, not text", str(path)))
    if problems:
        raise MlkdError(problems)


def _describe_unreadable(path: Path, error: Exception) -> MlkdError:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        remedy = "run 'git lfs pull' in the repository it came from"
        return fail("E312", "looks like a git-lfs pointer, not the data", where=str(path), remedy=remedy)
    damage = "cut off or damaged" if head.startswith(b"PAR1") else "not a Parquet file"
    reason = str(error).splitlines()[0]
    return fail("E311", f"{damage} ({reason})", where=str(path), remedy="download it again")


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
