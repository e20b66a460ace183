"""A transformer with pooling, an optional dense layer and an optional normalisation.

Shapes: N sentences, L tokens, H hidden, D output dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.pooling import Pooling, pool

TokenIds = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What happens to a text before the transformer: truncation in tokens, and whether it is lower-cased first."""

    max_length: int
    lower_case: bool = False


class SentenceEncoder(nn.Module):
    """Student, teacher or baseline: sentences in, one vector each out.

    Args:
        body: a transformers encoder whose first output is the last hidden state (N, L, H).
        tokenizer: its fast tokenizer.
        pooling: over the tokens of a sentence.
        denses: layers applied after pooling, each with its activation, H -> ... -> D.
        normalize: whether vectors are scaled to unit norm at the end.
        text: truncation and case.
    """

    def __init__(
        self,
        body: nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling,
        denses: Sequence[nn.Module] = (),
        normalize: bool = False,
        text: TextSettings,
    ) -> None:
        super().__init__()
        self.body = body
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.denses = nn.ModuleList(denses)
        self.normalize = normalize
        self.text = text
        self.encode_tokens = 16384  # tokens in one forward pass of `encode`
        self.precision: torch.dtype | None = None  # autocast type of `encode`; None computes in the weights' own

    @property
    def device(self) -> torch.device:
        return next(self.body.parameters()).device

    @property
    def dimension(self) -> int:
        """D, the length of the vectors."""
        for layer in reversed(self.denses):
            linear = getattr(layer, "linear", None)
            if linear is not None:
                return int(linear.out_features)
        return int(self.body.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (N, L) -> vectors (N, D)."""
        tokens_NLH = self.body(input_ids=input_ids, attention_mask=attention_mask)[0]
        vectors = pool(tokens_NLH, attention_mask, self.pooling)
        for dense in self.denses:
            vectors = dense(vectors)
        vectors = vectors.float()
        return F.normalize(vectors, dim=1) if self.normalize else vectors

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, special tokens added, cut to the maximum length.

        A control token spelled out in a text (`</s>`) is split like other text: data cannot end a sentence early.
        """
        if not texts:
            return []
        prepared = [t.lower() for t in texts] if self.text.lower_case else list(texts)
        # split_special_tokens is not enough: a Unigram model like XLM-R's holds its control tokens as pieces.
        controls = re.compile("|".join(map(re.escape, self.tokenizer.all_special_tokens)) or "(?!)")
        prepared = [controls.sub(lambda m: f"{m[0][0]} {m[0][1:]}", t) for t in prepared]
        batch = self.tokenizer(
            prepared,
            truncation=True,
            max_length=self.text.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,
        )
        return [np.asarray(ids, dtype=np.int32) for ids in batch["input_ids"]]

    def forward_tokens(self, rows: Sequence[TokenIds], max_tokens: int) -> Tensor:
        """Vectors (N, D) of token id rows, in order; each forward pass holds rows of like length.

        Sorting by length inside the batch removes nearly all padding without changing which sentences meet in it.
        """
        order: list[int] = []
        parts: list[Tensor] = []
        for chunk in length_chunks([len(r) for r in rows], max_tokens):
            input_ids, mask = pad([rows[i] for i in chunk], self.pad_id)
            parts.append(self(input_ids.to(self.device, non_blocking=True), mask.to(self.device, non_blocking=True)))
            order.extend(chunk)
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
        with autocast(self.device, self.precision):
            return self.forward_tokens(self.tokenize(texts), self.encode_tokens).float().cpu()


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


def length_chunks(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices sorted by falling length, cut so that rows x longest row stays within `max_tokens`.

    >>> list(length_chunks([2, 9, 3], max_tokens=10))
    [[1], [2, 0]]
    """
    chunk: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if chunk and (len(chunk) + 1) * lengths[chunk[0]] > max_tokens:
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk


def pad(rows: Sequence[TokenIds], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> (ids, mask), both int64 (N, longest row)."""
    longest = max(len(r) for r in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
