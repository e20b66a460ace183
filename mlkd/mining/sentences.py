"""The distinct sentences of a file, with what was left out and repaired."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from mlkd.data.formats.tsv import OnBadUtf8, read_lines
from mlkd.errors import MlkdError, fail

MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sentences:
    """One side.

    Args:
        path: of the file.
        texts: distinct, in order of first occurrence.
        line_numbers: of each text, from 1; of several equal lines the last one stands for all, as in BUCC's protocol.
        num_lines: of the file.
        left_out: lines by reason: `blank`, `duplicate`, `too_long`, `bad_utf8_skipped`.
        repaired: how often each repair was made, see `mlkd.data.formats.tsv.TextLines`; and `tab`.
        sha256: of the decompressed file.
    """

    path: str
    texts: list[str]
    line_numbers: list[int]
    num_lines: int
    left_out: dict[str, int]
    repaired: dict[str, int]
    sha256: str

    def describe(self) -> str:
        """Lines, distinct sentences, and what became of the others."""
        counts = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in self.left_out.items()]
        parts = [f"{self.num_lines:,} lines", f"{len(self.texts):,} distinct sentences"]
        parts += [f"left out: {', '.join(counts)}"] if counts else []
        repairs = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in self.repaired.items()]
        parts += [f"repaired: {', '.join(repairs)}"] if repairs else []
        return f"{self.path}: {'; '.join(parts)}"


def read_sentences(path: str, on_bad_utf8: OnBadUtf8 = OnBadUtf8.error) -> Sentences:
    """Read one side; a TAB inside a line becomes a space, so that the output keeps its columns.

    Raises:
        MlkdError: what `mlkd.data.formats.tsv.read_lines` raises, and E303 where no sentence is left.
    """
    try:
        read = read_lines(path, on_bad_utf8=on_bad_utf8)
    except MlkdError as error:
        # The remedy names the key of a training corpus.
        mended = [dataclasses.replace(p, remedy=p.remedy.replace("data.on_bad", "on_bad")) for p in error.problems]
        raise MlkdError(mended) from error
    left_out: Counter[str] = Counter()
    repaired = Counter({reason: n for reason, n in read.cleaned.items() if reason != "bad_utf8_skipped"})
    line_of: dict[str, int] = {}
    for number, raw in enumerate(read.lines, start=1):
        line = raw.replace("\t", " ")
        repaired["tab"] += raw.count("\t")
        if number - 1 in read.skipped:
            left_out["bad_utf8_skipped"] += 1
        elif not line.strip():
            left_out["blank"] += 1
        elif len(line) > MAX_CHARACTERS:
            left_out["too_long"] += 1
        else:
            left_out["duplicate"] += line in line_of
            line_of[line] = number
    if not line_of:
        raise fail("E303", f"{path} has no sentence: {_counts(left_out)} of {len(read.lines):,} lines left out")
    return Sentences(
        path=path,
        texts=list(line_of),
        line_numbers=list(line_of.values()),
        num_lines=len(read.lines),
        left_out=dict(+left_out),
        repaired=dict(+repaired),
        sha256=read.sha256,
    )


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in (+counter).items())
