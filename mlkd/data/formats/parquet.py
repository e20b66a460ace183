"""Parquet files: text columns, by name, dots for nested ones (`translation.de`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mlkd.data.formats.compression import find_missing
from mlkd.data.formats.jsonl import _check_columns, _describe_unreadable, _hash_file
from mlkd.data.formats.tsv import Table, clean_cells
from mlkd.errors import MlkdError, fail


def read_parquet(path: str | Path, columns: Sequence[str]) -> Table:
    """Read text columns of a Parquet file; null is empty text, counted.

    Raises:
        MlkdError: E301 missing, E303 empty, E310 no such column or not text, E311 not readable as Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing = find_missing(path)
    if missing:
        raise MlkdError(missing)
    path = Path(path)
    if path.stat().st_size == 0:
        raise fail("E303", f"{path} is empty (0 bytes)", remedy="check how the file was made or downloaded")
    try:
        with pq.ParquetFile(path) as file:
            schema = pa.schema(file.schema_arrow)
            # Unnest only what holds a wanted column; the rest of the file is not read.
            roots = sorted({column.split(".")[0] for column in columns if column not in schema.names} & {*schema.names})
            direct = [column for column in columns if column in schema.names]
            table = file.read(columns=[*direct, *roots])
    except (pa.ArrowInvalid, OSError) as error:
        raise _describe_unreadable(path, error) from error
    for _ in range(max((column.count(".") for column in columns), default=0)):
        table = table.flatten()
    _check_columns(path, columns, schema.names, table)
    cleaned: Counter[str] = Counter()
    values = {}
    for column in columns:
        cells = table.column(column)
        if cells.null_count:
            cleaned["null"] += cells.null_count
        try:
            values[column] = clean_cells([cell or "" for cell in cells.to_pylist()], cleaned)
        except UnicodeDecodeError as error:
            raise fail("E304", f"column '{column}' holds text that is not UTF-8", where=str(path)) from error
    return Table(values, list(range(1, table.num_rows + 1)), cleaned, _hash_file(path))
