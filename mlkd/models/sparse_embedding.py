"""Sparse embedding: token embeddings that a training step touches only in the rows of its batch.

A batch goes through the student in several passes. With a plain embedding each pass would make a gradient of the whole
vocabulary; here the rows of the batch are gathered once, all passes read that small table, and its gradient goes back
once.

Shapes: V pieces, R rows in the batch, H hidden dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.models.sentence_encoder import SentenceEncoder


class SparseEmbedding(nn.Embedding):
    """An `nn.Embedding` that reads from the rows gathered for the batch while there are some."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(
            embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx, _weight=embedding.weight
        )
        self.weight.requires_grad_(embedding.weight.requires_grad)
        self.rows_R: Tensor | None = None
        self.table_RH: Tensor | None = None
        # Buffers that are no state: where each piece stands in the table, valid for the rows of the batch only.
        self.register_buffer("_place_V", torch.zeros(embedding.num_embeddings, dtype=torch.long), persistent=False)

    def gather(self, rows_R: Tensor, *, sparse: bool) -> None:
        """Let `forward` read from `rows_R` (distinct piece ids, padding included) until `release`.

        Args:
            rows_R: int64.
            sparse: the table is a leaf of its own, whose gradient (R, H) a row-wise optimiser takes; otherwise the
                gradient flows on into the whole weight.
        """
        place_V: Tensor = self.get_buffer("_place_V")
        place_V[rows_R] = torch.arange(len(rows_R), device=rows_R.device)
        self.rows_R = rows_R
        table_RH = F.embedding(rows_R, self.weight, self.padding_idx)
        self.table_RH = table_RH.detach().requires_grad_() if sparse else table_RH

    def gather_all(self, *, sparse: bool) -> None:
        """As `gather` of every row, but no copy: for an objective that compares with the whole vocabulary."""
        self.release()
        if sparse:
            rows_R = torch.arange(self.num_embeddings, device=self.weight.device)
            self.get_buffer("_place_V")[:] = rows_R
            self.rows_R, self.table_RH = rows_R, self.weight.detach().requires_grad_()

    @property
    def matrix(self) -> Tensor:
        """What `forward` reads rows of: the table (R, H) while there is one, else the weight (V, H)."""
        return self.weight if self.table_RH is None else self.table_RH

    def release(self) -> None:
        """Read from the whole weight again."""
        self.rows_R = self.table_RH = None

    def forward(self, input: Tensor) -> Tensor:
        """Ids of any shape -> vectors with H behind."""
        if self.table_RH is None:
            return super().forward(input)
        place_V: Tensor = self.get_buffer("_place_V")
        return F.embedding(place_V[input], self.table_RH)


def use_sparse_embedding(student: SentenceEncoder) -> SparseEmbedding:
    """Put a SparseEmbedding over the student's token embedding and return it."""
    backbone: Any = student.backbone
    embedding = SparseEmbedding(backbone.get_input_embeddings()).to(student.device)
    backbone.set_input_embeddings(embedding)
    return embedding
