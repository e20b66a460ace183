"""Renamed keys: a command or a file that uses an earlier name is answered with the name of today."""

from __future__ import annotations

from mlkd.errors import Problem

# Old key -> key of today, or several to choose from. A key stands for all below it (`search.trials`); `*` is any name.

LOSSES = {
    "loss.ranking.against": "loss.ranking.candidates",
    "loss.auxiliary": "loss.masked_lm",
    "optim.lazy_embeddings": "optim.sparse_embeddings",
}

MODELS: dict[str, str | tuple[str, ...]] = {
    "student.layers": ("student.num_layers", "student.keep_layers"),  # of thin_deep; of pretrained and teacher_layers
    "student.hidden": "student.hidden_size",
    "student.heads": "student.num_attention_heads",
    "student.ffn": "student.intermediate_size",
    "teacher_model": "teacher.model",  # of mlkd-eval
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
    "hardware.processes": "hardware.num_processes",
}

RENAMED: dict[str, str | tuple[str, ...]] = {**LOSSES, **MODELS, **DATA_AND_TASKS, **TRAINING}


def names_of_today(key: str) -> list[str]:
    """What a key is called today; empty where it never had another name.

    >>> names_of_today("hardware.processes"), names_of_today("search.trials"), names_of_today("search_more")
    (['hardware.num_processes'], ['hpo.trials'], [])
    """
    names = key.split(".")
    for old, new in RENAMED.items():
        pattern = old.split(".")
        if len(names) >= len(pattern) and all(p in ("*", n) for p, n in zip(pattern, names, strict=False)):
            found = [n for p, n in zip(pattern, names, strict=False) if p == "*"]
            return [_filled(name, found, names[len(pattern) :]) for name in ([new] if isinstance(new, str) else new)]
    return []


def _filled(pattern: str, found: list[str], rest: list[str]) -> str:
    values = iter(found)
    return ".".join([next(values) if part == "*" else part for part in pattern.split(".")] + rest)


def renamed_problem(key: str, where: str = "") -> Problem | None:
    """E214 for an unknown key that had this name once; `where` is the file that has it, empty for a command."""
    names = names_of_today(key)
    if not names:
        return None
    what = f"'{key}' is called {' or '.join(names)} today"
    return Problem("E214", what, where, f"write {' or '.join(names)}")
