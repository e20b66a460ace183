"""Every task on its embedded set: what it prints is what its item scores say, so that intervals are theirs.

And it encodes no text but those that it declares, which are what vectors computed elsewhere are asked for.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Sequence

import pytest
import torch

from mlkd.config.registry import SCHEMAS
from mlkd.errors import MlkdError
from mlkd.tasks.base import Task
from mlkd.tasks.scoring.bootstrap import compare_systems, with_intervals

WITHOUT_EMBEDDED_SET = {"xnli_schema"}
# Time and memory are no items that could be drawn again.
WITHOUT_ITEM_SCORES = {"efficiency_schema"}
EMBEDDED = sorted(
    name
    for name, schema in SCHEMAS["task"].items()
    if inspect.isclass(schema) and name not in WITHOUT_ITEM_SCORES | WITHOUT_EMBEDDED_SET
)


class Trigrams:
    """Hashed letter trigrams; a seed makes another encoder."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: set[str] = set()

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked.update(texts)
        vectors = torch.full((len(texts), 48), 0.1)
        for row, text in zip(vectors, texts, strict=True):
            for i in range(len(text) - 2):
                hashed = zlib.crc32(f"{self.seed} {text[i : i + 3].lower()}".encode())
                row[hashed % 48] += 1.0 if hashed >> 16 & 1 else -1.0
        return vectors


@pytest.mark.parametrize("schema", sorted(WITHOUT_EMBEDDED_SET))
def test_what_has_no_embedded_set_says_so(schema: str) -> None:
    with pytest.raises(MlkdError, match="E205"):
        SCHEMAS["task"][schema]()


@pytest.mark.parametrize("schema", EMBEDDED)
def test_scores_are_those_of_the_item_scores(schema: str) -> None:
    task: Task = SCHEMAS["task"][schema]()
    data = task.load()
    encoders, teacher = (Trigrams(1), Trigrams(2)), Trigrams(9)
    result, other = (task.score(data, encoder, teacher) for encoder in encoders)
    assert encoders[0].asked and encoders[0].asked | teacher.asked <= set(task.encoded_texts(data))
    values = {f"{score.language}/{score.metric}": score.value for score in result.scores}
    assert {key: values[key] for key in result.item_scores} == {key: s.value() for key, s in result.item_scores.items()}
    mains = {key for key in values if key.endswith(f"/{result.main}")}
    assert f"mean/{result.main}" in mains and mains <= set(result.item_scores)
    intervals = with_intervals(result, 200).details["intervals"]
    for key in mains:
        value = values[key]
        if value is not None:
            low, high = intervals[key]
            assert low - 1e-9 <= high and high - low < 100
    compared = {test.language for test in compare_systems({"a": [result], "b": [other]}, 100)}
    assert compared == {key.split("/")[0] for key in mains if values[key] is not None}
