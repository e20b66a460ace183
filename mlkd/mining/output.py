"""Output of mining: score TAB source TAB target, best first, and the facts beside it.

Shapes: P pairs.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlkd.errors import fail
from mlkd.knn.retrieval import Candidates
from mlkd.mining.sentences import Sentences
from mlkd.runtime.atomic_files import replaced_file, temporary_path
from mlkd.runtime.lock import not_writable


def metadata_path(output: Path) -> Path:
    """The JSON file of metadata beside an output."""
    return output.with_name(output.name + ".json")


def refuse_other_output(output: Path, fingerprint: str) -> None:
    """E514 where `output` exists and was not made by the settings and files of this `fingerprint`."""
    if not output.exists():
        return
    try:
        made_by = json.loads(metadata_path(output).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        made_by = None
    if made_by != fingerprint:
        what = "exists, and other files or settings made it" if made_by else "exists, and mlkd-mine did not make it"
        raise fail("E514", f"'{output}' {what}", where="output", remedy="give output=<another name>, or overwrite=true")


def check_writable(output: Path) -> None:
    """Create the folder of `output`.

    Raises:
        MlkdError: E510 where it cannot be written.
    """
    probe = temporary_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise not_writable(output, error) from error


def write_pairs(output: Path, rows: Iterable[str]) -> None:
    """Replace `output` by these lines; the same lines give the same bytes, compressed too."""
    try:
        with replaced_file(output) as temporary, temporary.open("wb") as raw:
            _write_lines(raw, rows, compressed=output.name.endswith(".gz"))
    except OSError as error:
        raise not_writable(output, error) from error


def _write_lines(raw: IO[bytes], rows: Iterable[str], *, compressed: bool) -> None:
    if not compressed:
        raw.writelines(row.encode("utf-8") for row in rows)
        return
    # Without name and time, which gzip would put into the file.
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream, io.BufferedWriter(stream) as buffered:
        for row in rows:
            buffered.write(row.encode("utf-8"))


def format_pairs(pairs: Candidates, source: Sentences, target: Sentences, *, line_numbers: bool) -> Iterator[str]:
    """Lines of the output; a score has as many digits as tell its float32 from all others."""
    columns = pairs.score.numpy(), pairs.source.tolist(), pairs.target.tolist()
    for score, i, j in zip(*columns, strict=True):
        numbers = f"\t{source.line_numbers[i]}\t{target.line_numbers[j]}" if line_numbers else ""
        printed = np.format_float_positional(score, trim="0")
        yield f"{printed}\t{source.texts[i]}\t{target.texts[j]}{numbers}\n"


def describe_side(side: Sentences) -> dict[str, Any]:
    """One side as JSON."""
    return {
        "path": side.path,
        "sha256": side.sha256,
        "lines": side.num_lines,
        "sentences": len(side.texts),
        "left_out": side.left_out,
        "repaired": side.repaired,
    }
