"""Keys and options under names they once had: a command that uses one is answered with the name of today."""

from __future__ import annotations

# Old key -> key of today. A key ends at a dot or at the end: `student.hidden` is not `student.hidden_size`.

MODELS = {
    "student.layers": "student.num_layers",  # thin_deep; student.keep_layers in pretrained and teacher_layers
    "student.hidden": "student.hidden_size",
    "student.heads": "student.num_attention_heads",
    "student.ffn": "student.intermediate_size",
}

DATA_AND_TASKS = {
    "data.repository": "data.dataset",
}

TRAINING = {
    "search": "hpo",
}

RENAMED: dict[str, str] = MODELS | DATA_AND_TASKS | TRAINING
