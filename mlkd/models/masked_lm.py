"""Masked language modelling beside distillation: which tokens are hidden, and the head that must name them.

Shapes: N sentences, L tokens, H hidden, E dimensions of the token embedding, V pieces, M hidden tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.errors import fail
from mlkd.losses.masked_lm import MaskedLmTerm
from mlkd.models.gradient_cache import cached
from mlkd.models.packing import length_sorted_chunks, pad
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.sparse_embedding import SparseEmbedding
from mlkd.models.tokenization import TokenIds

AS_MASK, AS_RANDOM = 0.8, 0.1  # of the chosen tokens; the others stay what they are (Devlin et al. 2019, section 3.1)
STREAM = 0x6D6C6D  # keeps these random numbers apart from others of the same seed
LOGITS_AT_ONCE = 2**24

Places = np.ndarray[Any, np.dtype[np.int64]]


def check_mask_token(tokenizer: Any) -> None:
    """Raise E420 where a student's tokenizer has no mask token."""
    if tokenizer.mask_token_id is None:
        raise fail(
            "E420",
            "masked language modelling needs a mask token, which the student's tokenizer lacks",
            remedy="set loss.delta=0, or give the student another vocabulary",
        )


@dataclass(frozen=True, slots=True)
class Masked:
    """Sentences some of whose tokens are hidden.

    Args:
        rows: token ids with the hidden ones replaced.
        places: of each row, the positions that were chosen, ascending.
        labels: of each row, what stood there.
    """

    rows: list[TokenIds]
    places: list[Places]
    labels: list[TokenIds]

    @property
    def num_chosen(self) -> int:
        return sum(map(len, self.places))


class MaskedLm(nn.Module):
    """BERT's masked language model over a student: dense, GELU, normalisation, and the token embedding transposed.

    The softmax is over the whole vocabulary. The head is trained with the student and left behind when it is saved.
    Without it a student's vectors are the same, so hidden tokens are read in passes of their own.

    Args:
        term: share of tokens to hide.
        student: its widths are taken, not its weights.
        num_pieces: V.
        embedding_dim: E.
        seed: of the choice of tokens, with the number of the batch.

    Raises:
        MlkdError: E420 where the student's tokenizer has no mask token.
    """

    def __init__(
        self, term: MaskedLmTerm, student: SentenceEncoder, *, num_pieces: int, embedding_dim: int, seed: int
    ) -> None:
        super().__init__()
        check_mask_token(student.tokenizer)
        self.term = term
        self.seed = seed
        self.mask_id = int(student.tokenizer.mask_token_id)
        unknown = student.tokenizer.unk_token_id
        special = set(student.tokenizer.all_special_ids)
        self.control_ids = np.array(sorted(special - {unknown}), dtype=np.int32)
        self.word_ids = np.setdiff1d(np.arange(num_pieces, dtype=np.int32), sorted(special))
        self.dense = nn.Linear(int(student.backbone.config.hidden_size), embedding_dim)  # type: ignore[union-attr, arg-type]
        self.norm = nn.LayerNorm(embedding_dim)
        self.bias_V = nn.Parameter(torch.zeros(num_pieces))

    def forward(
        self,
        student: SentenceEncoder,
        embedding: SparseEmbedding,
        rows: Sequence[TokenIds],
        *,
        batch: int,
        max_tokens: int,
        caching: bool,
        own: Sequence[int] | None = None,
    ) -> Tensor:
        """Mean cross-entropy over the hidden tokens of `rows`, a scalar.

        Args:
            student: on the same device.
            embedding: its token embedding, holding all rows; see SparseEmbedding.gather_all.
            rows: token ids of sentences.
            batch: number of the batch, which with the seed decides what is hidden.
            max_tokens: token positions in one forward pass.
            caching: see `mlkd.models.gradient_cache`.
            own: the sentences that this process reads, None for all. What the others' add to the mean is left out.
        """
        masked = self.mask(rows, batch)
        total = self.bias_V.new_zeros(())
        read = range(len(rows)) if own is None else own
        for picked in length_sorted_chunks([len(rows[i]) for i in read], max_tokens):
            chunk = [read[n] for n in picked]
            input_ids, mask = pad([masked.rows[i] for i in chunk], student.pad_id)
            length = input_ids.shape[1]
            places = np.concatenate([n * length + masked.places[i] for n, i in enumerate(chunk)])
            if not len(places):
                continue
            labels = np.concatenate([masked.labels[i] for i in chunk]).astype(np.int64)
            tensors = (input_ids, mask, torch.from_numpy(places), torch.from_numpy(labels))
            inputs = [t.to(student.device, non_blocking=True) for t in tensors]
            loss = partial(self.chunk_loss, student, embedding)
            total = total + (cached(loss, *inputs) if caching else loss(*inputs))
        return total / masked.num_chosen

    def chunk_loss(self, student: SentenceEncoder, embedding: SparseEmbedding, *inputs: Tensor) -> Tensor:
        """Sum of the cross-entropies, from ids and mask (N, L), places (M,) in them flattened, and labels (M,)."""
        input_ids, mask, places_M, labels_M = inputs
        tokens_NLH = student.backbone(input_ids=input_ids, attention_mask=mask)[0]
        states_ME = self.norm(F.gelu(self.dense(tokens_NLH.flatten(0, 1)[places_M])))
        # Logits over the vocabulary are the largest tensors of all: a part at a time, and none kept.
        size = max(1, LOGITS_AT_ONCE // len(self.bias_V))
        parts = zip(torch.split(states_ME, size), torch.split(labels_M, size), strict=True)
        return torch.stack([cached(self.piece_loss, embedding, *part) for part in parts]).sum()

    def piece_loss(self, embedding: SparseEmbedding, states_ME: Tensor, labels_M: Tensor) -> Tensor:
        """Sum of the cross-entropies of `labels_M` among all pieces."""
        return F.cross_entropy(F.linear(states_ME, embedding.matrix, self.bias_V), labels_M, reduction="sum")

    def mask(self, rows: Sequence[TokenIds], batch: int) -> Masked:
        """`rows` with the share of their tokens hidden that the term asks for, at least one; control tokens never."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, STREAM, batch])))
        ids = np.concatenate(list(rows)).astype(np.int32)
        open_places = np.flatnonzero(~np.isin(ids, self.control_ids))
        count = max(1, round(self.term.mask_share * len(open_places)))
        chosen = np.sort(generator.choice(open_places, size=count, replace=False))
        lot, random_pieces = generator.random(count), generator.choice(self.word_ids, size=count)
        changed = np.where(lot < AS_MASK, self.mask_id, np.where(lot < AS_MASK + AS_RANDOM, random_pieces, ids[chosen]))
        labels = ids[chosen]
        ids[chosen] = changed
        starts = np.cumsum([0, *map(len, rows)])
        bounds = np.searchsorted(chosen, starts)
        spans = list(pairwise(bounds))
        return Masked(
            rows=np.split(ids, starts[1:-1]),
            places=[chosen[a:b] - start for (a, b), start in zip(spans, starts[:-1], strict=True)],
            labels=[labels[a:b] for a, b in spans],
        )
