"""Keys and options under names they once had: a command that uses one is answered with the name of today."""

from __future__ import annotations

# Old key -> key of today. A key ends at a dot or at the end: `student.hidden` is not `student.hidden_size`.

MODELS = {
    "student.ffn": "student.intermediate_size",
}

DATA_AND_TASKS = {
    "data.repository": "data.dataset",
    "data.config_name": "data.subset",
    "data.config_names": "data.subsets",
}

TRAINING = {
    "search": "hpo",
}

RENAMED: dict[str, str] = MODELS | DATA_AND_TASKS | TRAINING
