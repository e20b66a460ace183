"""A side of a mining: distinct sentences with the lines they stand on, and a count of everything that is not there."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mlkd.data.formats.tsv import OnBadUtf8
from mlkd.errors import MlkdError
from mlkd.mining import sentences
from mlkd.mining.sentences import read_sentences


def write(folder: Path, content: bytes, name: str = "a.txt") -> str:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def test_distinct_sentences_in_order_with_their_last_line(tmp_path: Path) -> None:
    side = read_sentences(write(tmp_path, b"b\na\n\nb\n  \nc\nb\n"))
    assert side.texts == ["b", "a", "c"]
    assert side.line_numbers == [7, 2, 6]
    assert side.num_lines == 7
    assert side.left_out == {"duplicate": 2, "blank": 2}
    assert side.repaired == {}
    counts = "7 lines; 3 distinct sentences; left out: 2 duplicate, 2 blank"
    assert side.describe() == f"{tmp_path / 'a.txt'}: {counts}"


def test_what_would_break_the_output_is_repaired_and_counted(tmp_path: Path) -> None:
    side = read_sentences(write(tmp_path, "x\ty\tz\r\nl\u2028s\r\nt\x00\r\n".encode() + b"plain " * 60, "a.txt.gz"))
    assert side.texts[:3] == ["x y z", "l s", "t"]
    assert side.repaired == {"tab": 2, "crlf": 3, "line_break_character": 1, "nul": 1}


def test_lines_that_are_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, b"one\ntw\xff\nthree\n")
    with pytest.raises(MlkdError) as caught:
        read_sentences(path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E304", f"{path}:2")
    assert "or set on_bad_utf8=skip|replace" in problem.remedy
    assert "data." not in problem.remedy
    skipped = read_sentences(path, OnBadUtf8.skip)
    assert (skipped.texts, skipped.line_numbers, skipped.left_out) == (
        ["one", "three"],
        [1, 3],
        {"bad_utf8_skipped": 1},
    )
    replaced = read_sentences(path, OnBadUtf8.replace)
    assert replaced.texts == ["one", "tw\ufffd", "three"]
    assert replaced.repaired == {"bad_utf8_replaced": 1}


def test_a_line_too_long_to_be_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "MAX_CHARACTERS", 5)
    side = read_sentences(write(tmp_path, b"12345\n123456\n"))
    assert (side.texts, side.left_out) == (["12345"], {"too_long": 1})


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match=r"E303.*has no sentence: 3 blank of 3 lines left out"):
        read_sentences(write(tmp_path, b"\n \n\t\n"))
