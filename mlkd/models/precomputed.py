"""Precomputed vectors: a list of texts, and a matrix by anybody whose row n belongs to line n.

    folder/texts.txt      UTF-8, one distinct text a line, as `mlkd-eval export_texts=folder` writes it
    folder/texts.sha256   its hash in the form of `sha256sum texts.txt`
    folder/<name>.npy     float32 or float16 (N, D), row n is the vector of line n; one file for each encoder

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.errors import did_you_mean, fail
from mlkd.runtime.atomic_files import write_text

TEXTS_FILE = "texts.txt"
HASH_FILE = "texts.sha256"
_CHECKED_ROWS = 65_536
_NO_LINE = re.compile(r"[\n\r\ud800-\udfff]")


def export_texts(folder: Path, texts: Iterable[str]) -> int:
    """Write the distinct `texts` in order of first appearance, and their hash; returns their number.

    Raises:
        MlkdError: E409 for a text that holds a line break, or half a character (a lone surrogate).
    """
    distinct = list(dict.fromkeys(texts))
    for text in distinct:
        if _NO_LINE.search(text):
            raise fail("E409", f"a text of these tasks cannot be a line of {TEXTS_FILE}: {text[:60]!r}")
    content = "".join(f"{text}\n" for text in distinct)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TEXTS_FILE, content)
    write_text(folder / HASH_FILE, f"{hashlib.sha256(content.encode()).hexdigest()}  {TEXTS_FILE}\n")
    return len(distinct)


def holds_vectors(path: Path) -> bool:
    """Whether `path` is a .npy file or a folder of texts with vectors."""
    return path.suffix == ".npy" or ((path / TEXTS_FILE).is_file() and not (path / "config.json").is_file())


def locate_vectors(path: Path) -> Path:
    """The .npy file that `path` is or holds.

    Raises:
        MlkdError: E401 where there is none, no list of texts beside it, or several to choose from.
    """
    folder = path.parent if path.suffix == ".npy" else path
    if not folder.is_dir():
        raise fail("E401", f"no such folder '{folder}' (cwd={Path.cwd()})")
    found = sorted(folder.glob("*.npy"))
    for name in (TEXTS_FILE, HASH_FILE):
        if not (folder / name).is_file():
            raise fail(
                "E401",
                f"'{folder}' has no {name}, so nobody knows whose vectors these are",
                remedy=f"sha256sum {TEXTS_FILE} > {HASH_FILE}"
                if name == HASH_FILE
                else "mlkd-eval export_texts=<folder> task=[...] writes it",
            )
    if path.suffix == ".npy":
        if not path.is_file():
            raise fail("E401", f"no such file '{path}'.{did_you_mean(str(path), map(str, found))}")
        return path
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        remedy = (
            f"name one: checkpoint={found[0]}" if found else f"row n of <name>.npy belongs to line n of {TEXTS_FILE}"
        )
        raise fail("E401", f"'{folder}' has {len(found)} .npy files ({names}); one is needed", remedy=remedy)
    return found[0]


@dataclass(frozen=True, slots=True)
class PrecomputedEncoder:
    """An encoder that looks vectors up.

    Args:
        path: the .npy file.
        vectors_ND: memory-mapped.
        row: of each text.
    """

    path: Path
    vectors_ND: np.ndarray[Any, np.dtype[Any]]
    row: dict[str, int]

    @classmethod
    def open(cls, path: Path) -> PrecomputedEncoder:
        """Open and check what `locate_vectors` found.

        Raises:
            MlkdError: E402 where texts, their hash and the matrix do not fit, or a number is not finite.
        """
        texts = _read_texts(path.parent)
        try:
            vectors_ND = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise fail("E402", f"no .npy file of numbers ({error})", where=str(path)) from error
        if vectors_ND.ndim != 2 or vectors_ND.dtype not in (np.float32, np.float16):
            what = f"must be float32 or float16 (N, D); got {vectors_ND.dtype} {vectors_ND.shape}"
            raise fail("E402", what, where=str(path))
        if len(vectors_ND) != len(texts):
            what = f"has {len(vectors_ND):,} rows, {TEXTS_FILE} {len(texts):,} lines: row n belongs to line n"
            raise fail("E402", what, where=str(path))
        for start in range(0, len(vectors_ND), _CHECKED_ROWS):
            bad = np.flatnonzero(~np.isfinite(vectors_ND[start : start + _CHECKED_ROWS]).all(axis=1))
            if len(bad):
                line = start + int(bad[0])
                raise fail("E402", f"row {line} holds NaN or infinity: {texts[line][:60]!r}", where=str(path))
        return cls(path, vectors_ND, {text: row for row, text in enumerate(texts)})

    @property
    def dimension(self) -> int:
        return int(self.vectors_ND.shape[1])

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, D).

        Raises:
            MlkdError: E409 for a text without a vector.
        """
        self.check(texts)
        return torch.from_numpy(np.asarray(self.vectors_ND[[self.row[text] for text in texts]], dtype=np.float32))

    def check(self, texts: Iterable[str]) -> None:
        """Raise E409 unless every text has a vector."""
        missing = [text for text in dict.fromkeys(texts) if text not in self.row]
        if missing:
            raise fail(
                "E409",
                f"{len(missing):,} texts have no vector, first {missing[0][:80]!r}",
                where=str(self.path),
                remedy="export the texts of these very tasks: mlkd-eval export_texts=<folder> task=[...]",
            )


def vectors_sha256(path: Path) -> str:
    """Hash of a .npy file: the model hash of whoever computed it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_texts(folder: Path) -> list[str]:
    content = (folder / TEXTS_FILE).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    wanted = (folder / HASH_FILE).read_text(encoding="utf-8").split()[:1]
    if [found] != wanted:
        what = f"sha256 {found[:12]}... is not that of {HASH_FILE}: it was changed since its export"
        raise fail("E402", what, where=str(folder / TEXTS_FILE), remedy="export the texts again and encode those")
    try:
        texts = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise fail("E402", f"not UTF-8 ({error})", where=str(folder / TEXTS_FILE)) from error
    if texts.pop():
        raise fail("E402", "the last line has no line break", where=str(folder / TEXTS_FILE))
    if len(set(texts)) != len(texts):
        raise fail("E402", "lists a text twice", where=str(folder / TEXTS_FILE))
    return texts
