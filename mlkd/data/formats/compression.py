"""Bytes of a text file, plain or compressed, or one clear error for what is not text at all."""

from __future__ import annotations

import bz2
import difflib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mlkd.errors import MlkdError, Problem, fail

_CHUNK_BYTES = 1 << 16
_HEAD_BYTES = 1024
_ARCHIVE_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
_MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh9": ".bz2"}
# What servers send in place of a file that is not there, saved under the file's name.
_NOT_FOUND_PAGES = {b"404: not found", b"not found", b"entry not found", b"404 page not found", b"access denied"}


def read_bytes(path: str | Path) -> bytes:
    """The content of `path`, decompressed by its suffix (.gz, .xz, .zst, .bz2).

    Raises:
        MlkdError: E301 missing or unreadable, E303 empty, E306 binary, E311 damaged archive, E312 page or pointer.
    """
    path = Path(path)
    missing = find_missing(path)
    if missing:
        raise MlkdError(missing)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            _refuse_placeholder(path, head)
            suffix = path.suffix.lower()
            if suffix not in _ARCHIVE_SUFFIXES:
                _refuse_unnamed_archive(path, head)
                data = head + file.read()
            else:
                file.seek(0)
                data = _decompress(path, suffix, file) if head else b""
    except PermissionError as error:
        raise fail("E301", f"'{path}' cannot be read: {error.strerror}") from error
    if not data:
        size = "0 bytes after decompression" if head else "0 bytes"
        raise fail("E303", f"{path} is empty ({size})", remedy="check how the file was made or downloaded")
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        _refuse_placeholder(path, data[:_HEAD_BYTES])
    return data


def find_missing(path: str | Path) -> Problem | None:
    """E301 for a path that is no readable file, naming the nearest name that exists; None where the file is there."""
    path = Path(path)
    try:
        return _find_missing(path)
    except OSError as error:
        return Problem("E301", f"'{path}' cannot be looked at: {error.strerror}")


def _find_missing(path: Path) -> Problem | None:
    cwd = Path.cwd()
    if path.is_dir():
        return Problem("E301", f"'{path}' is a folder, not a file (cwd={cwd})")
    if path.exists():
        return None
    if not path.parent.is_dir():
        ancestor = next(parent for parent in path.absolute().parents if parent.is_dir())
        return Problem("E301", f"no such file '{path}': only '{ancestor}' exists of its folders (cwd={cwd})")
    return Problem("E301", f"no such file '{path}'.{_suggest_sibling(path)} (cwd={cwd})")


def _suggest_sibling(path: Path) -> str:
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    same = [name for name in names if Path(path.name).stem == name or name in _archive_names(path.name)]
    nearest = same or difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f" Did you mean '{path.parent / nearest[0]}'?" if nearest else ""


def _archive_names(name: str) -> set[str]:
    return {name + suffix for suffix in _ARCHIVE_SUFFIXES}


def _refuse_placeholder(path: Path, head: bytes) -> None:
    """E312 for what was saved in place of the data: a web page, a git-lfs or git-annex pointer."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        remedy = "run 'git lfs pull' in the repository it came from"
        raise fail("E312", "looks like a git-lfs pointer, not the data", where=str(path), remedy=remedy)
    if start.startswith(b"/annex/objects/"):
        remedy = "run 'git annex get' in the repository it came from"
        raise fail("E312", "looks like a git-annex pointer, not the data", where=str(path), remedy=remedy)
    # A corpus of software texts may begin with a lone <html>: only a page that also has a head or a body counts.
    is_page = start.startswith(b"<!doctype html") or (
        start.startswith(b"<html") and any(tag in start for tag in (b"<head", b"<body", b"<title"))
    )
    # TMX is XML as well: among XML files only XHTML and the error documents of object stores are refused.
    is_page = is_page or (start.startswith(b"<?xml") and any(tag in start for tag in (b"<html", b"<error>")))
    if is_page or start.rstrip() in _NOT_FOUND_PAGES:
        remedy = "download it again and look at it first: the server sent a page instead of the file"
        raise fail("E312", "looks like an HTML page or an error message, not the data", where=str(path), remedy=remedy)


def _refuse_unnamed_archive(path: Path, head: bytes) -> None:
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            remedy = f"rename it to '{path.name}{suffix}'"
            raise fail("E306", f"looks binary: compressed, without the suffix {suffix}", where=str(path), remedy=remedy)


def _decompress(path: Path, suffix: str, file: IO[bytes]) -> bytes:
    """Decompress in pieces, so that the error can say how far the archive was good."""
    pieces: list[bytes] = []
    damage = "unexpected end of file"
    try:
        pieces.extend(_pieces(suffix, file))
    except EOFError as error:
        cause: Exception = error
    except (OSError, lzma.LZMAError, zlib.error, _ZstdDamageError) as error:
        cause, damage = error, f"damaged archive ({error})"
    else:
        return b"".join(pieces)
    num_lines = sum(piece.count(b"\n") for piece in pieces)
    remedy = "download it again; a copy was cut off or changed"
    raise fail("E311", f"{damage} after {num_lines:,} lines", where=str(path), remedy=remedy) from cause


class _ZstdDamageError(Exception):
    """What zstandard could not decode."""


def _pieces(suffix: str, file: IO[bytes]) -> Iterator[bytes]:
    if suffix == ".zst":
        yield from _zstd_pieces(file)
        return
    stream: io.BufferedIOBase
    if suffix == ".gz":
        stream = gzip.GzipFile(fileobj=file)
    else:
        stream = (lzma.LZMAFile if suffix == ".xz" else bz2.BZ2File)(file)
    with stream:
        # read1 hands over what is there before it finds the end missing, so that the lines can be counted.
        while piece := stream.read1(_CHUNK_BYTES):
            yield piece


def _zstd_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Frame after frame; zstandard's own stream reader takes a truncated frame for a finished one."""
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    fresh = True
    while chunk := file.read(_CHUNK_BYTES):
        while chunk:
            if frame.eof:
                frame, fresh = zstandard.ZstdDecompressor().decompressobj(), True
            try:
                piece = frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise _ZstdDamageError(str(error)) from error
            fresh = False
            if piece:
                yield piece
            chunk = frame.unused_data if frame.eof else b""
    if not frame.eof and not fresh:
        raise EOFError("a Zstandard frame ends early")
