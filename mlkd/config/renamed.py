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
    "task.*.english": "task.*.source_encoder",
    "task.*.english_column": "task.*.source_column",
    "task.*.foreign_column": "task.*.target_column",
    "task.*.english_path": "task.*.source_path",
    "task.*.train_language": "task.*.source_language",
}

TRAINING = {
    "search": "hpo",
}

RENAMED: dict[str, str] = MODELS | DATA_AND_TASKS | TRAINING
