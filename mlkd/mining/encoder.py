"""The encoder of a mining: what names it, and its weights, opened when a vector is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mlkd.config.mine_schema import MineConfig
from mlkd.models.hub import locate_model
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import folder_sha256, load_encoder
from mlkd.runtime.devices import autocast_type, place


class LazyEncoder:
    """An encoder of which a mining that has all vectors never opens the weights."""

    def __init__(self, config: MineConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._encoder: SentenceEncoder | None = None

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """float32 (N, D) on the CPU."""
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder.encode(texts)

    def _load(self) -> SentenceEncoder:
        config, device = self._config, self._device
        encoder = load_encoder(
            config.encoder,
            pooling=config.pooling,
            max_length=config.max_length,
            trust_remote_code=config.trust_remote_code,
        )
        encoder.precision = autocast_type(config.hardware.precision, device)
        encoder.encode_tokens = config.hardware.forward_tokens(device)
        place(encoder.body, device, encoder.precision)
        return encoder.to(device)


def fingerprint_encoder(config: MineConfig, device: torch.device) -> str:
    """Names everything the vectors depend on but the sentences: weights, tokenizer, pooling, length, precision."""
    precision = autocast_type(config.hardware.precision, device)
    parts = [folder_sha256(locate_model(config.encoder)), str(config.pooling), str(config.max_length), str(precision)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
