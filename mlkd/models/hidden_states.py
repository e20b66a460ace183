"""A transformer seen up to one of its layers, as baselines are that pool another layer than the last.

Shapes: N sentences, L tokens, H hidden dimensions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class UpToLayer(nn.Module):
    """A transformers body whose first output is `hidden_states[layer]` instead of the last hidden state.

    Args:
        body: the whole transformer.
        layer: 0 for the embeddings, 1 for the first layer's output, negative numbers from the end (-1 the last).
    """

    def __init__(self, body: nn.Module, layer: int) -> None:
        super().__init__()
        self.body = body
        self.layer = layer

    @property
    def config(self) -> Any:
        return self.body.config

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the whole transformer."""
        found: nn.Module = self.body.get_input_embeddings()  # type: ignore[operator]
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Ids and mask (N, L) -> hidden states (N, L, H)."""
        output = self.body(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return (output.hidden_states[self.layer],)
