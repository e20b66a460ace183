"""TMX translation memories: XML read in one pass, without entities and without a document type of its own."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from xml.parsers import expat

from mlkd.data.formats.compression import read_bytes
from mlkd.data.formats.tsv import clean_cells
from mlkd.data.pairs import RawPairs
from mlkd.errors import MlkdError, Problem, fail

# Inside <seg>, these hold formatting codes of the program that wrote the file, not text.
_CODE_ELEMENTS = {"bpt", "ept", "it", "ph", "ut"}


def read_tmx(path: str | Path, source_language: str, target_language: str) -> RawPairs:
    """Read the units of two languages; a code matches its regional variants (`de` and `de-DE`).

    Raises:
        MlkdError: E313 not well-formed, or it declares entities; and what `read_bytes` raises.
    """
    data = read_bytes(path)
    reader = _TmxReader(str(path), source_language, target_language)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        what = f"not well-formed XML ({expat.ErrorString(error.code)}, column {error.offset + 1})"
        raise fail("E313", what, where=f"{path}:{error.lineno}") from error
    cleaned: Counter[str] = Counter()
    return RawPairs(
        clean_cells([source for source, _ in reader.rows], cleaned),
        clean_cells([target for _, target in reader.rows], cleaned),
        str(path),
        reader.line_numbers,
        +reader.dropped,
        +cleaned,
        {str(path): hashlib.sha256(data).hexdigest()},
    )


class _TmxReader:
    """Collects the text of `<tu><tuv xml:lang="..."><seg>` for two languages."""

    def __init__(self, path: str, source_language: str, target_language: str) -> None:
        self.path = path
        self.languages = (source_language.lower(), target_language.lower())
        self.rows: list[tuple[str, str]] = []
        self.line_numbers: list[int] = []
        self.dropped: Counter[str] = Counter()
        self._unit: dict[str, str] = {}
        self._unit_line = 0
        self._language: str | None = None
        self._text: list[str] | None = None
        self._code_depth = 0
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_entity

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self._unit, self._unit_line = {}, self.parser.CurrentLineNumber
        elif name == "tuv":
            self._language = self._match(attributes.get("xml:lang") or attributes.get("lang") or "")
        elif name == "seg":
            self._text = []
        elif name in _CODE_ELEMENTS:
            self._code_depth += 1

    def _end(self, name: str) -> None:
        if name in _CODE_ELEMENTS:
            self._code_depth -= 1
        elif name == "seg" and self._text is not None:
            if self._language:
                # White space of the XML layout is not text.
                self._unit.setdefault(self._language, re.sub(r"[ \t\r\n]+", " ", "".join(self._text)))
            self._text = None
        elif name == "tu":
            if all(language in self._unit for language in self.languages):
                self.rows.append((self._unit[self.languages[0]], self._unit[self.languages[1]]))
                self.line_numbers.append(self._unit_line)
            else:
                self.dropped["missing_language"] += 1

    def _characters(self, text: str) -> None:
        if self._text is not None and not self._code_depth:
            self._text.append(text)

    def _match(self, code: str) -> str | None:
        code = code.lower().replace("_", "-")
        exact = [language for language in self.languages if language.replace("_", "-") == code]
        base = [language for language in self.languages if language == code.split("-")[0]]
        return next(iter(exact + base), None)

    def _doctype(self, name: str, system_id: str | None, public_id: str | None, has_internal_subset: int) -> None:
        # A reference to tmx14.dtd is harmless: it is never fetched. Declarations inside the file are not.
        if has_internal_subset:
            self._refuse_entity(name)

    def _refuse_entity(self, *_: object) -> None:
        what = "declares or uses entities of its own, which are refused: they can blow up a small file to gigabytes"
        raise MlkdError(
            Problem("E313", what, f"{self.path}:{self.parser.CurrentLineNumber}", "write the text out instead")
        )
