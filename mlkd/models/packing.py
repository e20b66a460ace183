"""Packing: several sentences share a row of a forward pass, so that hardly a position holds padding.

Sentences of a batch differ in length, and padded to the longest a third of all positions is often padding. A packed
pass has rows of one width, each with several sentences one after the other; positions count from the start of each
sentence, and attention sees the own sentence alone. What comes out for a sentence is what it gets in a row of its own,
but for rounding.

Packing needs a transformer that takes positions and a mask (R, 1, W, W) as transformers' own BERT, RoBERTa, XLM-R,
CamemBERT, ELECTRA, DistilBERT and MPNet do. Others, and those whose code a model folder brings, are padded.

Shapes: N sentences, L longest of them, R rows, W positions in a row.

Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination" (arXiv:2107.02027), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.models.tokenization import TokenIds

PACKABLE_MODEL_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"})
MAX_COST_RATIO = 0.95  # packed where the passes then cost less than this share of padded ones
MASKED_SCORE = -1e9  # added to attention scores between sentences; exp of it is 0


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Which sentences one forward pass reads.

    Args:
        rows: indices of the sentences in each row.
        width: positions in a row.
    """

    rows: list[list[int]]
    width: int

    @property
    def order(self) -> list[int]:
        """The sentences, row by row."""
        return [i for row in self.rows for i in row]

    @property
    def is_packed(self) -> bool:
        return any(len(row) > 1 for row in self.rows)

    def cost(self, hidden: int) -> float:
        """Time in units of one position's linear layers at this hidden size; attention's share grows with the width.

        Attention's scores take about width / (4 hidden) of a layer's time (measured on CPUs, hidden 128 to 384).
        """
        return len(self.rows) * self.width * (1 + self.width / (4 * hidden))


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the sentences of a packed pass are.

    Args:
        position_ids_RW: as the transformer counts them.
        sentence_ids_RW: the number of the sentence at each position, -1 for none.
        token_positions_NL: each sentence's positions in the rows one after the other; 0 behind its end.
    """

    position_ids_RW: Tensor
    sentence_ids_RW: Tensor
    token_positions_NL: Tensor

    def to(self, device: torch.device) -> Packing:
        return Packing(
            *(
                t.to(device, non_blocking=True)
                for t in (self.position_ids_RW, self.sentence_ids_RW, self.token_positions_NL)
            )
        )

    def states(self, backbone: Any, input_ids_RW: Tensor) -> Tensor:
        """The last hidden states of `backbone`, (N, L, H); those behind a sentence's end are anything."""
        same_R1WW = self.sentence_ids_RW[:, None, :, None] == self.sentence_ids_RW[:, None, None, :]
        mask_R1WW = torch.zeros(same_R1WW.shape, dtype=backbone.dtype, device=same_R1WW.device)
        mask_R1WW.masked_fill_(~same_R1WW, MASKED_SCORE)
        found_RWH: Tensor = backbone(
            input_ids=input_ids_RW, attention_mask=mask_R1WW, position_ids=self.position_ids_RW
        )[0]
        # index_select: the backward pass of indexing with a tensor is slow on CPUs.
        return (
            found_RWH.flatten(0, 1)
            .index_select(0, self.token_positions_NL.flatten())
            .view(*self.token_positions_NL.shape, -1)
        )


def first_position_id(backbone: Any, pad_id: int) -> int | None:
    """The position id of a sentence's first token in `backbone`, None where it cannot read packed rows."""
    config = getattr(backbone, "config", None)
    if getattr(config, "model_type", None) not in PACKABLE_MODEL_TYPES or not type(backbone).__module__.startswith(
        "transformers."
    ):
        return None
    if config._attn_implementation not in ("sdpa", "eager"):  # type: ignore[union-attr]
        return None
    padding_idx = getattr(backbone.embeddings, "padding_idx", None)  # RoBERTa and MPNet count positions from behind it
    if padding_idx is None:
        return 0
    return padding_idx + 1 if padding_idx == pad_id else None


def plan_forward_passes(lengths: Sequence[int], max_tokens: int, hidden: int | None) -> list[ForwardPass]:
    """All sentences in passes of at most `max_tokens` positions (but at least one row), packed where that is faster.

    Args:
        lengths: tokens of each sentence.
        max_tokens: positions in one pass.
        hidden: the transformer's hidden size; None where rows cannot be packed.
    """
    padded = [
        ForwardPass([[i] for i in chunk], lengths[chunk[0]]) for chunk in length_sorted_chunks(lengths, max_tokens)
    ]
    if hidden is None or not lengths or min(lengths) < 1:
        return padded
    limit = MAX_COST_RATIO * sum(p.cost(hidden) for p in padded)
    if sum(lengths) >= limit:
        return padded
    packed = list(packed_forward_passes(lengths, max_tokens, hidden))
    return packed if sum(p.cost(hidden) for p in packed) < limit else padded


def packed_forward_passes(lengths: Sequence[int], max_tokens: int, hidden: int) -> Iterator[ForwardPass]:
    """Passes of packed rows, the longest sentences first, each of the width that is cheapest for what it holds."""
    by_length: list[list[int]] = [[] for _ in range(max(lengths) + 1)]
    for i, length in enumerate(lengths):
        by_length[length].append(i)
    while any(by_length):
        histogram = [len(indices) for indices in by_length]
        narrowest = -(-max(length for length, count in enumerate(histogram) if count) // 8) * 8
        found: list[tuple[float, list[list[int]], int]] = []
        for width in (narrowest, narrowest + 8, 2 * narrowest):
            rows = fill_rows(histogram, width, max(1, max_tokens // width))
            found.append((ForwardPass(rows, width).cost(hidden) / sum(map(sum, rows)), rows, width))
        _, rows, width = min(found)
        yield ForwardPass([[by_length[length].pop() for length in row] for row in rows], width)


def fill_rows(histogram: Sequence[int], width: int, max_rows: int) -> list[list[int]]:
    """Rows of lengths from `histogram`, the longest first, each where it leaves the least space.

    Args:
        histogram: how many sentences there are of each length from 0; none longer than `width`.
        width: of a row.
        max_rows: what fits into no row then stays.

    >>> fill_rows([0, 0, 2, 1, 0, 1], width=8, max_rows=2)
    [[5, 3], [2, 2]]
    """
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(width + 1)]  # rows with so much space left
    spaces = 0  # bit s: there is a row with space s
    for length in range(len(histogram) - 1, 0, -1):
        for _ in range(histogram[length]):
            fitting = spaces >> length << length
            if fitting:
                space = (fitting & -fitting).bit_length() - 1
                row = by_space[space].pop()
                if not by_space[space]:
                    spaces ^= 1 << space
            elif len(rows) < max_rows:
                row, space = len(rows), width
                rows.append([])
            else:
                break
            rows[row].append(length)
            by_space[space - length].append(row)
            spaces |= 1 << (space - length)
    return rows


def pack(rows: Sequence[TokenIds], planned: ForwardPass, pad_id: int, first: int) -> tuple[Tensor, Tensor, Packing]:
    """The sentences of a pass, in its order -> ids (R, W), mask (N, L) of what belongs to them, where they are.

    Args:
        rows: token ids of all sentences.
        planned: which of them, and where.
        pad_id: for positions without a token.
        first: position id of a sentence's first token.
    """
    chosen = [rows[i] for i in planned.order]
    lengths_N = np.array([len(r) for r in chosen])
    ends_N = np.concatenate([np.cumsum([len(rows[i]) for i in row]) for row in planned.rows])
    row_N = np.repeat(np.arange(len(planned.rows)), [len(row) for row in planned.rows])
    starts_N = row_N * planned.width + ends_N - lengths_N
    steps_L = np.arange(lengths_N.max())
    mask_NL = steps_L < lengths_N[:, None]
    token_positions_NL = np.where(mask_NL, starts_N[:, None] + steps_L, 0)
    places_T = token_positions_NL[mask_NL]
    ids, positions, sentences = (
        np.full(len(planned.rows) * planned.width, value, dtype=np.int64) for value in (pad_id, first, -1)
    )
    ids[places_T] = np.concatenate(chosen)
    positions[places_T] = np.broadcast_to(steps_L + first, mask_NL.shape)[mask_NL]
    sentences[places_T] = np.repeat(np.arange(len(chosen)), lengths_N)
    ids_RW, positions_RW, sentence_ids_RW = (
        torch.from_numpy(a.reshape(-1, planned.width)) for a in (ids, positions, sentences)
    )
    mask = torch.from_numpy(mask_NL.astype(np.int64))
    return ids_RW, mask, Packing(positions_RW, sentence_ids_RW, torch.from_numpy(token_positions_NL))


def length_sorted_chunks(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices sorted by falling length, cut so that rows x longest row stays within `max_tokens`.

    >>> list(length_sorted_chunks([2, 9, 3], max_tokens=10))
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
