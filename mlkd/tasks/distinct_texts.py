"""Encoding with repetitions: of many texts each distinct one is encoded once.

Shapes: N texts, U distinct texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mlkd.errors import fail
from mlkd.models.encoder import Encoder


class TextVectors:
    """A table from text to vector, filled by one call of the encoder.

    Args:
        encoder: any encoder.
        texts: all texts that will be asked for, in any order and number.

    Raises:
        MlkdError: E601 if a vector holds NaN or infinity.
    """

    def __init__(self, encoder: Encoder, texts: Iterable[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        self._row = {text: row for row, text in enumerate(distinct)}
        self._vectors_UD = encoder.encode(distinct).detach().float().cpu()
        bad = (~torch.isfinite(self._vectors_UD).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            what = f"{len(bad)} of {len(distinct)} vectors hold NaN or infinity, first for {distinct[bad[0]][:60]!r}"
            raise fail("E601", what, remedy="look at the loss of the run that made this encoder")

    def rows(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 on the CPU, in the order of `texts`."""
        return self._vectors_UD[[self._row[text] for text in texts]]

    @property
    def num_dimensions(self) -> int:
        return self._vectors_UD.shape[1]
