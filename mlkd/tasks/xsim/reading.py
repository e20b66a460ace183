"""Augmented source sentences of xsim++: one a line, with a JSON file that says what was changed in which sentence."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mlkd.data.formats.compression import find_missing, read_bytes
from mlkd.data.formats.tsv import read_lines
from mlkd.errors import MlkdError, fail

MISALIGNED = "misaligned"


@dataclass(frozen=True, slots=True)
class Augmented:
    """Hard negatives: `sentences[n]` is in the pool of candidates beside the translations.

    Args:
        sentences: near copies of source sentences, wrong in one place.
        kinds: (original, augmented sentence) -> kind of error, e.g. `number_replacement`.
    """

    sentences: list[str]
    kinds: dict[tuple[str, str], str]

    def kind_of(self, wanted: str, found: str) -> str:
        """What the wrongly found sentence is to the wanted one; `misaligned` where it comes from another sentence."""
        return self.kinds.get((wanted.strip(), found.strip()), MISALIGNED)

    @property
    def all_kinds(self) -> list[str]:
        return [*sorted(set(self.kinds.values())), MISALIGNED]


def read_augmented(path: str, types_path: str) -> Augmented:
    """Read the published layout: `eng_Latn_augmented.devtest` and `eng_Latn_errtype.devtest.json`.

    The JSON is an object: augmented sentence -> `{"src": original sentence, "errtype": kind of error}`.

    Raises:
        MlkdError: E309 what is no such JSON, E316 files of which no sentence agrees, and what `read_lines` raises.

    Source:
        Chen et al. 2023, "xSIM++: An Improved Proxy to Bitext Mining Performance for Low-Resource Languages"; LASER,
        tasks/xsimplusplus and source/xsim.py.
    """
    missing = [problem for problem in (find_missing(path), find_missing(types_path)) if problem is not None]
    if missing:
        raise MlkdError(missing)
    sentences = read_lines(path).lines
    try:
        entries = json.loads(read_bytes(types_path).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise fail("E304", f"byte {error.object[error.start]:#04x} is not UTF-8", where=types_path) from error
    except json.JSONDecodeError as error:
        raise fail("E309", f"not JSON ({error.msg} col {error.colno})", where=f"{types_path}:{error.lineno}") from error
    if not isinstance(entries, dict) or not entries:
        raise fail("E309", "must be an object: augmented sentence -> {src, errtype}", where=types_path)
    kinds = {}
    for sentence, entry in entries.items():
        original, kind = _original_and_kind(sentence, entry, types_path)
        kinds[original.strip(), sentence.strip()] = kind
    known = {sentence for _, sentence in kinds}
    if not any(sentence.strip() in known for sentence in sentences):
        raise fail("E316", f"no sentence of {path} is named there", where=types_path)
    return Augmented(sentences, kinds)


def _original_and_kind(sentence: str, entry: Any, where: str) -> tuple[str, str]:
    if not isinstance(entry, dict):
        raise fail("E309", f"'{sentence[:40]}' must have an object with src and errtype", where=where)
    for key in ("src", "errtype"):
        if not isinstance(entry.get(key), str):
            found = ", ".join(map(str, entry)) or "none"
            raise fail("E309", f"'{sentence[:40]}': missing key '{key}'; keys found: {found}", where=where)
    return entry["src"], re.sub(r"\W+", "_", entry["errtype"].strip().lower()).strip("_")
