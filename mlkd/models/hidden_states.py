"""Hidden states of an inner layer, for baselines that pool another layer than the last.

Shapes: N sentences, L tokens, H hidden dimensions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class UpToLayer(nn.Module):
    """A transformers backbone whose first output is `hidden_states[layer]` instead of the last hidden state.

    Args:
        backbone: the whole transformer.
        layer: 0 for the embeddings, 1 for the first layer's output, negative numbers from the end (-1 the last).
    """

    def __init__(self, backbone: nn.Module, layer: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = layer

    @property
    def config(self) -> Any:
        return self.backbone.config

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the whole transformer."""
        found: nn.Module = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Ids and mask (N, L) -> hidden states (N, L, H)."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return (output.hidden_states[self.layer],)
