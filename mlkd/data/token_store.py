"""The token store: every distinct text tokenised once, ids memory-mapped on disk and keyed by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.runtime.atomic_files import new_folder, remove_stale, write_json
from mlkd.runtime.hashing import fingerprint

TokenIds = np.ndarray[Any, np.dtype[np.int32]]
BLOCK = 20_000  # texts handed to the tokenizer at a time


@dataclass(slots=True)
class TokenStore:
    """Token ids of a list of texts.

    Args:
        ids: all ids, one after the other.
        starts: (texts + 1,) int64, text i is ids[starts[i]:starts[i + 1]].
    """

    ids: TokenIds
    starts: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> TokenIds:
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each text."""
        return np.diff(self.starts)

    @classmethod
    def open_or_build(
        cls,
        cache_dir: Path,
        texts: Sequence[str],
        tokenize: Callable[[Sequence[str]], list[TokenIds]],
        tokenizer_key: str,
    ) -> TokenStore:
        """The store of `texts` under `cache_dir`, built if it is not there.

        Args:
            cache_dir: shared by runs; the store's folder is named by tokenizer and texts.
            texts: in the order that indices refer to.
            tokenize: texts to token ids.
            tokenizer_key: names everything `tokenize` depends on.
        """
        key = hashlib.sha256(f"{tokenizer_key} {fingerprint(texts)}".encode()).hexdigest()[:24]
        folder = cache_dir / "tokens" / key
        if not (folder / "done.json").is_file():
            cls._build(folder, texts, tokenize)
        ids = np.memmap(folder / "ids.bin", dtype=np.int32, mode="r") if (folder / "ids.bin").stat().st_size else None
        return cls(
            ids=ids if ids is not None else np.empty(0, np.int32), starts=np.load(folder / "starts.npy", mmap_mode="r")
        )

    @staticmethod
    def _build(folder: Path, texts: Sequence[str], tokenize: Callable[[Sequence[str]], list[TokenIds]]) -> None:
        remove_stale(folder.parent)
        lengths: list[int] = []
        # Another run of a sweep may build the same store at the same time.
        with new_folder(folder) as temporary:
            with (temporary / "ids.bin").open("wb") as stream:
                for i in range(0, len(texts), BLOCK):
                    for row in tokenize(texts[i : i + BLOCK]):
                        lengths.append(len(row))
                        stream.write(np.ascontiguousarray(row, dtype=np.int32).tobytes())
            starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            np.save(temporary / "starts.npy", starts.astype(np.int64))
            write_json(temporary / "done.json", {"texts": len(texts), "tokens": int(sum(lengths))})
