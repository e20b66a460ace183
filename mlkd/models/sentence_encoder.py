"""Sentence encoder: a transformer with pooling, optional dense layers and an optional normalisation.

Shapes: N sentences, L tokens, H hidden, D output dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.gradient_cache import cached
from mlkd.models.packing import Packing, first_position_id, pack, pad, plan_forward_passes
from mlkd.models.pooling import Pooling, pool
from mlkd.models.tokenization import TokenIds, tokenize_texts
from mlkd.runtime.out_of_memory import fewer_tokens, release_device_memory

_LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What happens to a text before the transformer: `prompt` goes before it, then case, then truncation in tokens."""

    max_length: int
    lower_case: bool = False
    prompt: str = ""


class SentenceEncoder(nn.Module):
    """Student, teacher or baseline: sentences in, one vector each out.

    Args:
        backbone: a transformers encoder whose first output is the last hidden state (N, L, H).
        tokenizer: its fast tokenizer.
        pooling: over the tokens of a sentence.
        denses: layers applied after pooling, each with its activation, H -> ... -> D.
        normalize: whether vectors are scaled to unit norm at the end.
        text: truncation and case.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling,
        denses: Sequence[nn.Module] = (),
        normalize: bool = False,
        text: TextSettings,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.denses = nn.ModuleList(denses)
        self.normalize = normalize
        self.text = text
        self.encode_tokens = 16384  # tokens in one forward pass of `encode`
        self.precision: torch.dtype | None = None  # autocast type of `encode`; None computes in the weights' own

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def dimension(self) -> int:
        """D, the length of the vectors."""
        for layer in reversed(self.denses):
            linear = getattr(layer, "linear", None)
            if linear is not None:
                return int(linear.out_features)
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def add_pre_projection(self, dimension: int, *, replaces_last: bool) -> None:
        """Fresh dense layers to `dimension` and back to D at the end, or in the place of the last dense layer."""
        output = self.dimension
        if replaces_last:
            self.denses = nn.ModuleList([*self.denses[:-1]])
        self.denses.extend([Dense(self.dimension, dimension), Dense(dimension, output)])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pre_projection: bool = False, packing: Packing | None = None
    ) -> Tensor:
        """Token ids and mask (N, L) -> vectors (N, D), or (N, D + W) with what the last dense was given beside them.

        With `packing`, the ids are its rows and the mask says which tokens belong to a sentence once these are apart.
        """
        if packing is None:
            tokens_NLH = self.backbone(input_ids=input_ids, attention_mask=attention_mask)[0]
        else:
            tokens_NLH = packing.states(self.backbone, input_ids)
        if tokens_NLH.dtype in _LOW_PRECISION and not torch.is_autocast_enabled(tokens_NLH.device.type):
            tokens_NLH = tokens_NLH.float()  # weights in low precision; sums over tokens are not
        vectors = pool(tokens_NLH, attention_mask, self.pooling)
        before = vectors
        for dense in self.denses:
            before, vectors = vectors, dense(vectors)
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        vectors = F.normalize(vectors, dim=1) if self.normalize else vectors
        return torch.cat([vectors, before.to(vectors.dtype)], dim=1) if pre_projection else vectors

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, special tokens added, cut to the maximum length.

        A control token spelled out in a text (`</s>`) is split like other text: data cannot end a sentence early.
        """
        prepared = [self.text.prompt + text for text in texts] if self.text.prompt else texts
        return tokenize_texts(
            self.tokenizer, prepared, max_length=self.text.max_length, lower_case=self.text.lower_case
        )

    def forward_tokens(
        self, rows: Sequence[TokenIds], max_tokens: int, *, caching: bool = False, pre_projection: bool = False
    ) -> Tensor:
        """Vectors (N, D) of token id rows, in order; sentences share rows where that saves padding.

        Passes are planned inside the batch, which does not change which sentences meet in it (`mlkd.models.packing`).

        Args:
            rows: one or more.
            max_tokens: token positions in one forward pass, but at least one row.
            caching: keep no activations for the backward pass, see `mlkd.models.gradient_cache`.
            pre_projection: (N, D + W): what the last dense layer was given beside each vector, for distillation-first.
        """
        run = partial(cached, self) if caching else self
        first = first_position_id(self.backbone, self.pad_id)
        hidden = None if first is None else int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
        order: list[int] = []
        parts: list[Tensor] = []
        for planned in plan_forward_passes([len(r) for r in rows], max_tokens, hidden):
            packing: Packing | None = None
            if first is not None and planned.is_packed:
                ids, mask, packing = pack(rows, planned, self.pad_id, first)
                packing = packing.to(self.device)
            else:
                ids, mask = pad([rows[i] for i in planned.order], self.pad_id)
            on_device = [t.to(self.device, non_blocking=True) for t in (ids, mask)]
            parts.append(run(*on_device, pre_projection, packing))
            order.extend(planned.order)
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[inverse.to(self.device)]

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of `texts` in order, float32 (N, D) on the CPU, without gradients or dropout."""
        if not texts:
            return torch.empty(0, self.dimension)
        was_training = self.training
        self.eval()
        try:
            parts = [self._encode_block(texts[i : i + 8192]) for i in range(0, len(texts), 8192)]
        finally:
            self.train(was_training)
        return torch.cat(parts)

    def _encode_block(self, texts: Sequence[str]) -> Tensor:
        rows = self.tokenize(texts)
        while True:
            try:
                with autocast(self.device, self.precision):
                    return self.forward_tokens(rows, self.encode_tokens).float().cpu()
            except torch.OutOfMemoryError:
                pass
            release_device_memory()
            self.encode_tokens = fewer_tokens(self.encode_tokens, max(map(len, rows)), "encoding")


class Dense(nn.Module):
    """A linear layer with an activation, saved as the sentence-transformers module of that name."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, activation: str = "Identity") -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_name = activation
        self.activation: nn.Module = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}[
            activation
        ]()

    def forward(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.activation(self.linear(vectors))
        return result


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Mixed precision on `device`, or nothing for None."""
    return nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)
