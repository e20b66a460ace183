"""Rows of a dataset on the Hugging Face hub, its cache, or a local folder of the same layout."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlkd.data.formats.tsv import clean_cells
from mlkd.errors import MlkdError, Problem, fail

_PROBE_TIMEOUT_S = 3.0


class HubDataset(Protocol):
    """What names a dataset: a task is one."""

    name: str
    dataset: str
    revision: str | None
    split: str


def read_hub_rows(task: HubDataset, subset: str, columns: Sequence[str], split: str | None = None) -> list[list[Any]]:
    """Columns of `subset` of the task's dataset, fetched by the `datasets` library into its cache.

    Args:
        task: names the dataset, its revision, and the split where none is given.
        subset: its configuration.
        columns: by name.
        split: another one than the task's.

    Raises:
        MlkdError: E403 if neither the hub nor the cache has it, E310 if a column is missing.
    """
    import datasets

    split = split or task.split
    where = f"{task.dataset}, {subset}"
    try:
        with _no_waiting_for_an_unreachable_hub(task.dataset):
            rows = datasets.load_dataset(task.dataset, subset, split=split, revision=task.revision)
    except ValueError as error:
        raise fail("E310", f"no such subset or split '{split}' ({_first_line(error)})", where=where) from error
    except (ConnectionError, OSError, datasets.exceptions.DatasetsError) as error:
        raise MlkdError(_unreachable(task, error)) from error
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        what = f"column '{missing[0]}' missing; columns: {', '.join(rows.column_names)}"
        raise fail("E310", what, where=where)
    return [list(rows[column]) for column in columns]


def clean_texts(texts: Sequence[Any], where: str) -> list[str]:
    """Cells of a dataset as one-line texts.

    Raises:
        MlkdError: E310 naming the first row that holds no text.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise fail("E310", f"row {row + 1} holds {type(text).__name__} instead of text", where=where)
    return clean_cells(list(texts), Counter())


@contextlib.contextmanager
def _no_waiting_for_an_unreachable_hub(dataset: str) -> Iterator[None]:
    """Where the hub does not answer, ask the cache alone: `datasets` would retry for half a minute first."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    if not Path(dataset).is_dir() and not _hub_answers():
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    # Behind a proxy the hub's own port proves nothing.
    if urllib.request.getproxies():
        return True
    endpoint = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    address = (endpoint.hostname or "", endpoint.port or (80 if endpoint.scheme == "http" else 443))
    try:
        socket.create_connection(address, timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _unreachable(task: HubDataset, error: Exception) -> Problem:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Problem(
        "E403",
        f"cannot get the dataset '{task.dataset}' from huggingface.co, nor from the cache (HF_HOME={home}):"
        f" {_first_line(error)}",
        remedy=f"check the id; or run 'hf download --repo-type dataset {task.dataset}' on a machine with network and"
        f" copy the cache; or set {task.name}.dataset to a local folder of the same layout, or path to your own files",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().split("\n")
    return lines[0][:200] or type(error).__name__
