"""One encoder as an evaluation names it: whose it is, and how its token vectors become sentence vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlkd.errors import MlkdError, Problem, did_you_mean
from mlkd.models.hub import locate_model
from mlkd.models.pooling import Pooling
from mlkd.models.precomputed import PrecomputedEncoder, holds_vectors, locate_vectors, vectors_sha256
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import check_layer, default_prompt, folder_sha256, load_encoder

_TYPES: dict[str, tuple[type, str]] = {
    "path": (str, "a folder or hub id"),
    "vectors": (str, "a folder or .npy file"),
    "name": (str, "a name"),
    "pooling": (str, "mean, cls or max"),
    "layer": (int, "a whole number"),
    "prompt": (str, "text"),
    "max_length": (int, "a whole number"),
    "revision": (str, "a branch, tag or commit"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderChoice:
    """Anybody's encoder: `mlkd-eval checkpoint=` is one of these, or a list of them.

    Args:
        path: run folder, sentence-transformers or transformers folder, hub id, or precomputed vectors.
        vectors: folder or .npy file of precomputed vectors, see `mlkd.models.precomputed`; instead of `path`.
        name: in tables; empty takes the path.
        pooling: mean, cls or max; None takes the folder's own, mean where it has none.
        layer: of a plain transformer: 0 the embeddings, 8 the output of the eighth layer, -1 the last; None the last.
        prompt: put before each text, e.g. `query: `; None takes the folder's default prompt.
        max_length: tokens; None takes the model's own.
        revision: of a hub id.
    """

    path: str = ""
    vectors: str = ""
    name: str = ""
    pooling: str | None = None
    layer: int | None = None
    prompt: str | None = None
    max_length: int | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise MlkdError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, (kind, words) in _TYPES.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                yield Problem("E203", f"must be {words} (got {value!r})", name)
                return
        if bool(self.path) == bool(self.vectors):
            what = "give one of path and vectors" if self.path else "is required and not set; or give vectors"
            yield Problem("E209" if self.path else "E205", what, "path")
        if self.pooling not in (None, *Pooling.__members__):
            hint = did_you_mean(str(self.pooling), Pooling.__members__)
            yield Problem("E204", f"must be mean, cls or max (got '{self.pooling}').{hint}", "pooling")
        if self.max_length is not None and self.max_length < 4:
            yield Problem("E204", f"must be >= 4 (got {self.max_length})", "max_length")
        if self.vectors:
            for name in ("pooling", "layer", "prompt", "max_length", "revision"):
                if getattr(self, name) is not None:
                    yield Problem("E209", f"'{self.vectors}' are vectors already, nothing encodes", name)

    @classmethod
    def parse(cls, entry: Any, **defaults: Any) -> EncoderChoice:
        """From what a configuration says: a path, or a mapping of the fields.

        Args:
            entry: text or mapping.
            defaults: fields of models that the entry does not give.

        Raises:
            MlkdError: E201, E203, E204, E205, E209, all of them.
        """
        given: dict[str, Any] = dict(entry) if isinstance(entry, dict) else {"path": str(entry)}
        names = [f.name for f in fields(cls)]
        unknown = [str(key) for key in given if key not in names]
        if unknown:
            raise MlkdError([Problem("E201", f"unknown key.{did_you_mean(key, names)}", key) for key in unknown])
        path = given.get("path")
        if not given.get("vectors") and isinstance(path, str) and holds_vectors(Path(path).expanduser()):
            given["vectors"] = given.pop("path")
        return cls(**given) if given.get("vectors") else cls(**(defaults | given))

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.path or self.vectors

    def locate(self) -> Path:
        """The model folder or .npy file.

        Raises:
            MlkdError: E401 to E404 where there is none, E204 or E209 where it has no such layer.
        """
        if self.vectors:
            return locate_vectors(Path(self.vectors).expanduser())
        folder = locate_model(self.path, revision=self.revision)
        if self.layer is not None:
            check_layer(folder, self.layer)
        return folder

    def load(self, *, trust_remote_code: bool = False) -> SentenceEncoder | PrecomputedEncoder:
        """The encoder, on the CPU."""
        if self.vectors:
            return PrecomputedEncoder.open(self.locate())
        return load_encoder(
            self.path,
            pooling=Pooling[self.pooling] if self.pooling else None,
            max_length=self.max_length,
            revision=self.revision,
            trust_remote_code=trust_remote_code,
            layer=self.layer,
            prompt=self.prompt,
        )

    def describe(self) -> dict[str, Any]:
        """What identifies the encoder: where it is, the hash of its files, and settings that are not in them."""
        found = self.locate()
        if self.vectors:
            return {"path": str(found), "sha256": vectors_sha256(found)}
        settings = {name: getattr(self, name) for name in ("pooling", "layer", "prompt", "max_length")}
        if self.prompt is None:
            settings["prompt"] = default_prompt(found) or None
        given = {name: value for name, value in settings.items() if value is not None}
        return {"path": str(found), "sha256": folder_sha256(found), **given}
