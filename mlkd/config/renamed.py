"""Keys and options under names they once had: a command that uses one is answered with the name of today."""

from __future__ import annotations

# Old key -> key of today. A key ends at a dot or at the end: `student.hidden` is not `student.hidden_size`.

LOSSES = {
    "loss.ranking.against": "loss.ranking.candidates",
    "loss.auxiliary": "loss.masked_lm",
    "optim.lazy_embeddings": "optim.sparse_embeddings",
}

MODELS = {
    "student.ffn": "student.intermediate_size",
}

DATA_AND_TASKS = {
    "data.repository": "data.dataset",
}

TRAINING = {
    "search": "hpo",
}

RENAMED: dict[str, str] = LOSSES | MODELS | DATA_AND_TASKS | TRAINING
