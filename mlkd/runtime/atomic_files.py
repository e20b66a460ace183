"""Files and folders that are replaced whole: a reader sees the old or the new content, never a part.

What is being written has a name of its own beside the final one, `.<name>.<random>.tmp`, until it is complete and on
the disk. A process that is killed meanwhile leaves it behind; `remove_stale` clears that away.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STALE_AFTER_S = 24 * 3600.0  # where other processes may be writing: none of them takes so long for one file


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a file with this UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: object) -> None:
    """Replace `path` by this JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by a file with this content."""
    with replaced_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A new file to write, empty so far; it takes the place of `path` where the block ends without an error.

    Raises:
        OSError: the disk is full or failing; `path` is as it was.
    """
    temporary = temporary_path(path)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the place of `path` where the block ends without an error.

    One process alone may write `path`: the names in between are fixed, `<name>.tmp` and `<name>.old`, so that
    `restore_folder` finds what a killed process was replacing.

    Raises:
        OSError: the disk is full or failing; `path` is as it was.
    """
    temporary, old = (path.with_name(path.name + suffix) for suffix in (".tmp", ".old"))
    restore_folder(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_files(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Put back what a process that was killed inside `replaced_folder` was replacing, and remove its unfinished one."""
    temporary, old = (path.with_name(path.name + suffix) for suffix in (".tmp", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `path` unless another process has made `path` meanwhile: theirs stays then.

    Raises:
        OSError: the disk is full or failing; `path` is as it was.
    """
    temporary = temporary_path(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_files(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """A name beside `path` that nobody has; hidden, and not too long for a file system where `path` is not."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")


def remove_stale(folder: Path, older_than_s: float = STALE_AFTER_S) -> None:
    """Remove what processes that were killed while writing into `folder` left behind.

    Args:
        folder: need not exist.
        older_than_s: younger ones may be another process's; 0 where no other one writes here.
    """
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # its process has just renamed it
            if time.time() - path.stat().st_mtime >= older_than_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_files(folder: Path) -> None:
    """Make everything in `folder` survive a power cut."""
    for file in folder.rglob("*"):
        if file.is_file():
            sync_file(file)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Replace `path` (.npy) by this array."""
    with replaced_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
