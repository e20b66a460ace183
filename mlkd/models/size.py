"""Size of an encoder: parameters, with and without embeddings, and dimension."""

from __future__ import annotations

from mlkd.models.sentence_encoder import SentenceEncoder


def describe_size(encoder: SentenceEncoder) -> dict[str, int]:
    """Parameters, those that are not token embeddings, and the dimension."""
    total = sum(p.numel() for p in encoder.parameters())
    embeddings = encoder.backbone.get_input_embeddings().weight.numel()  # type: ignore[operator]
    return {
        "parameters": total,
        "parameters_without_embeddings": total - int(embeddings),
        "dimension": encoder.dimension,
    }
