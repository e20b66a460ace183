"""Archives, missing files and what is no data at all."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from mlkd.data.formats.compression import find_missing, read_bytes
from mlkd.errors import MlkdError

TEXT = "".join(f"Satz {index} hat einen eigenen Text.\n" for index in range(50_000)).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
}


def error_of(path: Path) -> MlkdError:
    with pytest.raises(MlkdError) as caught:
        read_bytes(path)
    return caught.value


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_give_their_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.de{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT))
    assert read_bytes(path) == TEXT


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_of_two_parts_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.de{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\n") + COMPRESS[suffix](b"two\n"))
    assert read_bytes(path) == b"one\ntwo\n"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_truncated_archives_name_the_lines_before_the_end(tmp_path: Path, suffix: str) -> None:
    packed = COMPRESS[suffix](os.urandom(200_000).hex().encode() + b"\n" + TEXT)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    error = error_of(path)
    assert error.problems[0].code == "E311"
    assert "unexpected end of file after" in str(error) and "lines" in str(error)
    assert error.exit_code == 3


def test_truncated_archive_counts_lines(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT, compresslevel=1)
    path = tmp_path / "a.gz"
    path.write_bytes(packed[:-4])
    assert "after 50,000 lines" in str(error_of(path))


def test_damaged_archive(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / "a.gz"
    path.write_bytes(packed)
    error = error_of(path)
    assert error.problems[0].code == "E311" and "damaged" in str(error)


def test_plain_text_named_gz(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(b"just text\n")
    assert error_of(path).problems[0].code == "E311"


def test_archive_without_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(gzip.compress(TEXT))
    error = error_of(path)
    assert error.problems[0].code == "E306" and "a.tsv.gz" in str(error)


def test_missing_file_suggests_the_archive_beside_it(tmp_path: Path) -> None:
    (tmp_path / "en-de.en.gz").write_bytes(gzip.compress(b"x\n"))
    error = error_of(tmp_path / "en-de.en")
    assert error.problems[0].code == "E301"
    assert f"Did you mean '{tmp_path}/en-de.en.gz'?" in str(error)
    assert f"cwd={Path.cwd()}" in str(error)


def test_missing_file_suggests_a_close_name(tmp_path: Path) -> None:
    (tmp_path / "train.en-de.tsv").write_text("x\n")
    problem = find_missing(tmp_path / "train.en_de.tsv")
    assert problem is not None and "train.en-de.tsv'?" in problem.what


def test_missing_folder_names_what_exists(tmp_path: Path) -> None:
    problem = find_missing(tmp_path / "no" / "such" / "file")
    assert problem is not None and f"only '{tmp_path}' exists" in problem.what


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "is a folder" in str(error_of(tmp_path))


def test_a_name_too_long_for_the_disk(tmp_path: Path) -> None:
    error = error_of(tmp_path / ("x" * 300))
    assert error.problems[0].code == "E301" and "cannot be looked at: File name too long" in str(error)


def test_a_pipe_is_read_like_a_file() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"one\ntwo\n")
    os.close(write_end)
    try:
        assert read_bytes(f"/dev/fd/{read_end}") == b"one\ntwo\n"
    finally:
        os.close(read_end)


def test_umlaut_and_space_in_a_path(tmp_path: Path) -> None:
    path = tmp_path / "lä b" / "größe.de"
    path.parent.mkdir()
    path.write_text("Straße\n", encoding="utf-8")
    assert read_bytes(path).decode() == "Straße\n"


@pytest.mark.parametrize("name", ["a.en", "a.en.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    error = error_of(tmp_path / name)
    assert error.problems[0].code == "E303" and "is empty (0 bytes)" in str(error)


def test_empty_archive(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b""))
    assert "0 bytes after decompression" in str(error_of(tmp_path / "a.gz"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0\n", "git annex get"),
        (b"<!DOCTYPE html>\n<html lang=en>", "HTML page"),
        (b"\n <html><head><title>404</title></head>", "HTML page"),
        (b"\xef\xbb\xbf<html><BODY>", "HTML page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "error message"),
        (b"404: Not Found", "error message"),
        (b"Entry not found", "error message"),
    ],
)
@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.zst"])
def test_what_a_server_sends_instead(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = error_of(tmp_path / name)
    assert error.problems[0].code == "E312"
    assert words in str(error)


def test_text_that_begins_with_a_tag_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_bytes(b"<html> is the first tag of a page.\nNot found\n")
    assert read_bytes(tmp_path / "a.en").startswith(b"<html>")
