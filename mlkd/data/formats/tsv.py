"""TSV and lines of text: bytes in, records out, with every oddity repaired and counted or refused by name."""

from __future__ import annotations

import enum
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlkd.data.formats.compression import read_bytes
from mlkd.errors import MlkdError, Problem, did_you_mean, fail

logger = logging.getLogger("mlkd")

# Characters that other readers take for the end of a line. Inside a record they become a space.
_LINE_BREAKS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_TO_SPACE = str.maketrans(dict.fromkeys(_LINE_BREAKS, " "))
_ODD_IN_CELL = re.compile(f"[\n{_LINE_BREAKS}\x00\ud800-\udfff]")
_MAX_NUL_SHARE = 0.01
_MAX_PROBLEMS_SHOWN = 3


class OnBadUtf8(enum.Enum):
    """What to do with a line that is not UTF-8: refuse the file, leave the line out, or write U+FFFD there."""

    error = "error"
    skip = "skip"
    replace = "replace"


class Header(enum.Enum):
    """Whether the first line of a table names its columns; `auto` looks for the wanted names there."""

    auto = "auto"
    present = "present"
    absent = "absent"


@dataclass(slots=True)
class TextLines:
    """The lines of one file.

    Args:
        lines: without line ends; line n of the file is `lines[n - 1]`.
        cleaned: how often each repair was made: `byte_order_mark`, `crlf`, `line_break_character`, `nul`,
            `bad_utf8_replaced`, `bad_utf8_skipped`.
        skipped: indices of lines that were not UTF-8 and are empty here, so that line numbers stay aligned.
        sha256: of the decompressed bytes.
    """

    lines: list[str]
    cleaned: Counter[str] = field(default_factory=Counter)
    skipped: frozenset[int] = frozenset()
    sha256: str = ""


@dataclass(slots=True)
class Table:
    """Wanted columns of one file, row-aligned.

    Args:
        columns: by the wanted name (or position, as text), in the wanted order.
        line_numbers: of each row, counted from 1 (Parquet: row numbers).
        cleaned: as in `TextLines`, and `blank_line`, `null`, `surrogate`.
        sha256: of the decompressed bytes.
    """

    columns: dict[str, list[str]]
    line_numbers: list[int]
    cleaned: Counter[str] = field(default_factory=Counter)
    sha256: str = ""


def read_lines(path: str | Path, *, on_bad_utf8: OnBadUtf8 = OnBadUtf8.error, raw: bool = False) -> TextLines:
    r"""Read a text file, plain or .gz, .xz, .zst, .bz2; records end at "\n" and nowhere else.

    Args:
        path: the file.
        on_bad_utf8: what to do with a line that is not UTF-8.
        raw: keep every character of a line as it is, line break characters, "\r" and NUL too; for protocols that
            compare or hash whole lines. A byte order mark is removed all the same.

    Raises:
        MlkdError: E301 missing, E303 empty, E304 not UTF-8, E306 binary, E311 damaged archive, E312 page or pointer.
    """
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    _refuse_binary(path, data)
    cleaned: Counter[str] = Counter()
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        cleaned["byte_order_mark"] = 1
        logger.warning("warning[W305]: %s starts with a byte order mark; it was left out", path)
    text, skipped = _decode(path, data, on_bad_utf8, cleaned)
    if not raw:
        text = _clean_text(text, cleaned)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise fail("E303", f"{path} has no lines ({len(data)} bytes)")
    return TextLines(lines, cleaned, skipped, sha256)


def read_tsv(
    path: str | Path,
    columns: Sequence[str | int] | None = None,
    header: Header = Header.auto,
    *,
    strict: bool = True,
    on_bad_utf8: OnBadUtf8 = OnBadUtf8.error,
) -> Table:
    """Read TAB-separated columns; quotes are text, and so are NA, null and None. Blank lines are left out and counted.

    Args:
        path: the file, compressed or not.
        columns: by name, or by position from 0 (an int or its digits); None for all.
        header: whether the first line names the columns. `auto` takes it for a header if it holds a wanted name, and
            for a row if all wanted columns are positions; with `columns=None` it takes it for a row.
        strict: every row must have as many columns as the first line; else as many as the wanted ones need.
        on_bad_utf8: what to do with a line that is not UTF-8.

    Raises:
        MlkdError: E307 wrong number of columns or no such column, and what `read_lines` raises.
    """
    text = read_lines(path, on_bad_utf8=on_bad_utf8)
    first = text.lines[0].split("\t")
    wanted = None if columns is None else [str(column) for column in columns]
    names = _header_names(first, wanted, header)
    if wanted is None:
        wanted = names or [str(position) for position in range(len(first))]
        positions = list(range(len(first)))
    else:
        positions = [_find_column(path, column, names, first) for column in wanted]
    expected = len(first) if strict else max(positions) + 1
    rows = _split_rows(path, text, int(names is not None), expected, strict)
    pairs = zip(wanted, positions, strict=True)
    values = {column: [row[position] for row in rows.values()] for column, position in pairs}
    return Table(values, list(rows), text.cleaned, text.sha256)


def _split_rows(
    path: str | Path, text: TextLines, num_header_lines: int, expected: int, strict: bool
) -> dict[int, list[str]]:
    """Cells by line number; E307 for rows of another number of columns."""
    rows: dict[int, list[str]] = {}
    problems = []
    for index in range(num_header_lines, len(text.lines)):
        line = text.lines[index]
        if index in text.skipped:
            continue
        if not line.strip():
            text.cleaned["blank_line"] += 1
            continue
        cells = line.split("\t")
        if len(cells) == expected or (len(cells) > expected and not strict):
            rows[index + 1] = cells
            continue
        least = "" if strict else "at least "
        what = f"expected {least}{expected} columns (tab), got {len(cells)}"
        problems.append(Problem("E307", what, f"{path}:{index + 1}"))
    raise_first(problems, "lines of this file have another number of columns")
    return rows


def clean_cells(cells: list[str], cleaned: Counter[str]) -> list[str]:
    """Repair cells of a format that can hold any character: line breaks to spaces, no NUL, no lone surrogates."""

    def replace(match: re.Match[str]) -> str:
        character = match.group()
        if character == "\x00":
            cleaned["nul"] += 1
            return ""
        if "\ud800" <= character <= "\udfff":
            cleaned["surrogate"] += 1
            return "\ufffd"
        cleaned["line_break_character"] += 1
        return " "

    return [_ODD_IN_CELL.sub(replace, cell) for cell in cells]


def raise_first(problems: list[Problem], more: str) -> None:
    """Raise the first few of many problems of one kind, saying how many `more` there are; nothing if there are none."""
    if not problems:
        return
    shown = problems[:_MAX_PROBLEMS_SHOWN]
    hidden = len(problems) - len(shown)
    if hidden:
        last = shown[-1]
        shown[-1] = Problem(last.code, f"{last.what}; {hidden:,} more {more}", last.where, last.remedy)
    raise MlkdError(shown)


def _refuse_binary(path: str | Path, data: bytes) -> None:
    marks = {b"\xff\xfe": "FF FE: UTF-16", b"\xfe\xff": "FE FF: UTF-16"}
    for mark, meaning in marks.items():
        if data.startswith(mark):
            remedy = f"convert: iconv -f UTF-16 -t UTF-8 '{path}' > '{path}.utf8'"
            raise fail("E304", f"not UTF-8: starts with {meaning}", where=str(path), remedy=remedy)
    num_nul = data.count(0)
    if num_nul <= _MAX_NUL_SHARE * len(data):
        return
    if num_nul > 0.2 * len(data) and max(data[0::2].count(0), data[1::2].count(0)) > 0.95 * num_nul:
        order = "UTF-16BE" if data[0::2].count(0) > data[1::2].count(0) else "UTF-16LE"
        remedy = f"convert: iconv -f {order} -t UTF-8 '{path}' > '{path}.utf8'"
        raise fail("E304", "not UTF-8: every other byte is NUL, as in UTF-16", where=str(path), remedy=remedy)
    share = 100 * num_nul / len(data)
    raise fail("E306", f"looks binary: {share:.1f} % of its bytes are NUL", where=str(path), remedy="give a text file")


def _decode(path: str | Path, data: bytes, on_bad_utf8: OnBadUtf8, cleaned: Counter[str]) -> tuple[str, frozenset[int]]:
    """Decode the whole file at once; only a file with a bad byte is looked at line by line."""
    try:
        return data.decode("utf-8"), frozenset()
    except UnicodeDecodeError as error:
        if on_bad_utf8 is OnBadUtf8.error:
            raise MlkdError(_describe_bad_byte(path, data, error)) from error
    lines: list[str] = []
    skipped = set()
    for index, raw_line in enumerate(data.split(b"\n")):
        try:
            line = raw_line.decode("utf-8")
        except UnicodeDecodeError:
            line = raw_line.decode("utf-8", errors="replace") if on_bad_utf8 is OnBadUtf8.replace else ""
            cleaned[f"bad_utf8_{'replaced' if line else 'skipped'}"] += 1
            if on_bad_utf8 is OnBadUtf8.skip:
                skipped.add(index)
        lines.append(line)
    return "\n".join(lines), frozenset(skipped)


def _describe_bad_byte(path: str | Path, data: bytes, error: UnicodeDecodeError) -> Problem:
    position = error.start
    line_start = data.rfind(b"\n", 0, position) + 1
    line_number = data.count(b"\n", 0, position) + 1
    column = position - line_start + 1
    is_cut = error.reason == "unexpected end of data"
    guess = "the file ends inside a character" if is_cut else "looks like Latin-1 or another 8-bit encoding"
    return Problem(
        "E304",
        f"byte 0x{data[position]:02x} at column {column} is not UTF-8 ({guess})",
        f"{path}:{line_number}",
        f"convert: iconv -f LATIN1 -t UTF-8 '{path}' > '{path}.utf8'; or set data.on_bad_utf8=skip|replace",
    )


def _clean_text(text: str, cleaned: Counter[str]) -> str:
    if num_crlf := text.count("\r\n"):
        cleaned["crlf"] += num_crlf
        text = text.replace("\r\n", "\n")
    # The last line may end in a CR whose LF is missing; it is a line end all the same.
    if text.endswith("\r"):
        cleaned["crlf"] += 1
        text = text[:-1]
    if num_breaks := sum(text.count(character) for character in _LINE_BREAKS):
        cleaned["line_break_character"] += num_breaks
        text = text.translate(_TO_SPACE)
    if num_nul := text.count("\x00"):
        cleaned["nul"] += num_nul
        text = text.replace("\x00", "")
    return text


def _header_names(first: list[str], wanted: list[str] | None, header: Header) -> list[str] | None:
    """The column names, or None where the first line is a row."""
    names = [cell.strip() for cell in first]
    if header is Header.present:
        return names
    if header is Header.absent or wanted is None or all(column.isdigit() for column in wanted):
        return None
    return names if any(column in names for column in wanted if not column.isdigit()) else None


def _find_column(path: str | Path, column: str, names: list[str] | None, first: list[str]) -> int:
    if names and names.count(column) == 1:
        return names.index(column)
    if names and names.count(column) > 1:
        raise fail("E307", f"column '{column}' occurs more than once: {', '.join(names)}", where=f"{path}:1")
    if column.isdigit() and int(column) < len(first):
        return int(column)
    if column.isdigit():
        what = f"no column at position {column}: there are {len(first)} (tab), counted from 0"
        raise fail("E307", what, where=f"{path}:1")
    if names is None:
        remedy = "name columns by position, counted from 0, or add a header line"
        shown = ", ".join(repr(cell[:30]) for cell in first)
        what = f"no column '{column}' in the first line, which has the columns: {shown}"
        raise fail("E307", what, where=f"{path}:1", remedy=remedy)
    suggestion = did_you_mean(column, names)
    raise fail("E307", f"no column '{column}'; columns: {', '.join(names)}.{suggestion}", where=f"{path}:1")
