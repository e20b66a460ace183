"""Encoder specification: which encoder, and how its texts become vectors; the same keys wherever one is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlkd.errors import MlkdError, Problem, did_you_mean, out_of_range
from mlkd.models.hub import locate_model
from mlkd.models.model_folder import check_layer, default_prompt, folder_sha256
from mlkd.models.pooling import Pooling
from mlkd.models.precomputed import PrecomputedEncoder, holds_vectors, locate_vectors, vectors_sha256
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import load_encoder
from mlkd.runtime.devices import Hardware, place
from mlkd.runtime.precision import autocast_type


class Dtype(Enum):
    """Number format of an encoder's weights and passes, under torch's names."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(kw_only=True, slots=True)
class EncoderSettings:
    """What an encoder does with a text; the keys of `teacher.`, of `mlkd-eval` and of `mlkd-mine`.

    Args:
        revision: branch, tag or commit of a hub id.
        pooling: mean, cls or max; None takes the folder's own, mean where it has none.
        layer: of a plain transformer: 0 the embeddings, 8 the output of the eighth layer, -1 the last; None the last.
        prompt: put before each text, e.g. `query: `; None takes the folder's default prompt.
        max_length: tokens; None takes the model's own.
        dtype: of weights and passes; None holds weights in float32 and computes as the hardware's precision says.
        trust_remote_code: run Python code that the model brings.
    """

    revision: str | None = None
    pooling: Pooling | None = None
    layer: int | None = None
    prompt: str | None = None
    max_length: int | None = None
    dtype: Dtype | None = None
    trust_remote_code: bool = False

    def setting_problems(self) -> list[Problem]:
        """What is out of range."""
        return out_of_range(self, "max_length", ge=4)

    def settings(self) -> dict[str, Any]:
        """The fields above, by name."""
        return {f.name: getattr(self, f.name) for f in fields(EncoderSettings)}


@dataclass(kw_only=True, slots=True)
class EncoderSpec(EncoderSettings):
    """An encoder: a model and what it does with a text.

    Args:
        model: run folder, sentence-transformers or transformers folder, hub id, or `package:<name>`; see
            `mlkd.models.hub.locate_model`.
    """

    model: str = ""

    def locate(self) -> Path:
        """The folder of the model.

        Raises:
            MlkdError: E401 to E404, E502 where there is none, E204 or E209 where it has no such layer.
        """
        folder = locate_model(self.model, revision=self.revision)
        if self.layer is not None:
            check_layer(folder, self.layer)
        return folder

    def load(self, folder: Path | None = None) -> SentenceEncoder:
        """The encoder, on the CPU; `folder` is where it was located, None looks for it."""
        return load_encoder(
            str(folder or self.model),
            revision=self.revision,
            pooling=self.pooling,
            layer=self.layer,
            prompt=self.prompt,
            max_length=self.max_length,
            dtype=None if self.dtype is None else getattr(torch, self.dtype.value),
            trust_remote_code=self.trust_remote_code,
        )

    def load_on(
        self, device: torch.device, precision: torch.dtype | None, max_tokens: int, folder: Path | None = None
    ) -> SentenceEncoder:
        """The encoder, ready to encode.

        Args:
            device: that it computes on.
            precision: autocast type of its passes, None for full precision; `dtype` goes before it.
            max_tokens: token positions in one forward pass.
            folder: where it was located; None looks for it.
        """
        encoder = self.load(folder)
        encoder.precision = precision if self.dtype is None else None
        encoder.encode_tokens = max_tokens
        place(encoder.backbone, device, encoder.precision)
        return encoder.to(device).requires_grad_(False)

    def fingerprint(self, sha256: str, precision: torch.dtype | None) -> str:
        """Names everything that vectors depend on but the texts: weights, tokenizer, settings, precision.

        Args:
            sha256: of the model's folder.
            precision: autocast type of its passes.
        """
        # The revision names weights that the hash is of already.
        settings = {k: v for k, v in self.settings().items() if k not in ("revision", "trust_remote_code")}
        parts = [sha256, *(f"{name}={value}" for name, value in settings.items()), str(precision)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def describe(self) -> dict[str, Any]:
        """What identifies the encoder: where it is, the hash of its files, and settings that are not in them."""
        found = self.locate()
        settings = {name: getattr(self, name) for name in ("pooling", "layer", "prompt", "max_length", "dtype")}
        if self.prompt is None:
            settings["prompt"] = default_prompt(found) or None
        given = {k: v.value if isinstance(v, Enum) else v for k, v in settings.items() if v is not None}
        return {"path": str(found), "sha256": folder_sha256(found), **given}


_TYPES: dict[str, tuple[type, str]] = {
    "model": (str, "a folder or hub id"),
    "vectors": (str, "a folder or .npy file"),
    "name": (str, "a name"),
    "layer": (int, "a whole number"),
    "prompt": (str, "text"),
    "max_length": (int, "a whole number"),
    "revision": (str, "a branch, tag or commit"),
    "trust_remote_code": (bool, "true or false"),
}
_OPTIONS: dict[str, tuple[type[Enum], str]] = {
    "pooling": (Pooling, "mean, cls or max"),
    "dtype": (Dtype, "float32, bfloat16 or float16"),
}


@dataclass(kw_only=True, slots=True)
class ScoredEncoder(EncoderSpec):
    """Anybody's encoder, or vectors that it computed elsewhere: `mlkd-eval checkpoint=` names one, or a list of them.

    Args:
        vectors: folder or .npy file of precomputed vectors, see `mlkd.models.precomputed`; instead of `model`.
        name: in tables; empty takes the model.
    """

    vectors: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise MlkdError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name, (kind, words) in _TYPES.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
                yield Problem("E203", f"must be {words} (got {value!r})", name)
                return
        if bool(self.model) == bool(self.vectors):
            what = "give one of model and vectors" if self.model else "is required and not set; or give vectors"
            yield Problem("E209" if self.model else "E205", what, "model")
        for name, (options, words) in _OPTIONS.items():
            value = getattr(self, name)
            if isinstance(value, str) and value in options.__members__:
                setattr(self, name, options[value])
            elif value is not None and not isinstance(value, options):
                hint = did_you_mean(str(value), options.__members__)
                yield Problem("E204", f"must be {words} (got '{value}').{hint}", name)
        yield from self.setting_problems()
        if self.vectors:
            for name in ("revision", "pooling", "layer", "prompt", "max_length", "dtype"):
                if getattr(self, name) is not None:
                    yield Problem("E209", f"'{self.vectors}' are vectors already, nothing encodes", name)

    @classmethod
    def parse(cls, entry: Any, **defaults: Any) -> ScoredEncoder:
        """From what a configuration says: a model, or a mapping of the fields.

        Args:
            entry: text or mapping.
            defaults: fields of models that the entry does not give.

        Raises:
            MlkdError: E201, E203, E204, E205, E209, E214, all of them.
        """
        given: dict[str, Any] = dict(entry) if isinstance(entry, dict) else {"model": str(entry)}
        names = [f.name for f in fields(cls)]
        unknown = [str(key) for key in given if key not in names]
        if unknown:
            raise MlkdError([_unknown_key(key, names) for key in unknown])
        model = given.get("model")
        if not given.get("vectors") and isinstance(model, str) and holds_vectors(Path(model).expanduser()):
            given["vectors"] = given.pop("model")
        return cls(**given) if given.get("vectors") else cls(**(defaults | given))

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.model or self.vectors

    def locate(self) -> Path:
        """The model folder or .npy file; see EncoderSpec.locate."""
        return locate_vectors(Path(self.vectors).expanduser()) if self.vectors else EncoderSpec.locate(self)

    def open(self, hardware: Hardware, device: torch.device) -> SentenceEncoder | PrecomputedEncoder:
        """The encoder on `device`, or its vectors."""
        if self.vectors:
            return PrecomputedEncoder.open(self.locate())
        precision = autocast_type(hardware.precision, device)
        return self.load_on(device, precision, hardware.forward_tokens(device))

    def describe(self) -> dict[str, Any]:
        """See EncoderSpec.describe."""
        if not self.vectors:
            return EncoderSpec.describe(self)
        found = self.locate()
        return {"path": str(found), "sha256": vectors_sha256(found)}


def _unknown_key(key: str, names: Sequence[str]) -> Problem:
    if key == "path":
        return Problem("E214", "'path' is called model today", key, "write model")
    return Problem("E201", f"unknown key.{did_you_mean(key, names)}", key)


class LazyEncoder:
    """An encoder whose weights are opened on first use: where all vectors are cached, none are."""

    def __init__(self, load: Callable[[], SentenceEncoder]) -> None:
        self._load = load
        self._encoder: SentenceEncoder | None = None

    @property
    def encoder(self) -> SentenceEncoder:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, D) on the CPU."""
        return self.encoder.encode(texts)
