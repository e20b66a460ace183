"""Item scores on disk: the same numbers again, whatever they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlkd.errors import MlkdError
from mlkd.tasks.scoring.item_scores import CorrelationItemScores, F1ItemScores, ItemScores, MeanItemScores
from mlkd.tasks.scoring.item_scores_file import find_item_scores, read_item_scores, write_item_scores
from mlkd.tasks.scoring.language_means import with_means


def groups() -> dict[str, dict[str, ItemScores]]:
    rng = np.random.default_rng(0)
    hits = with_means(
        {"de/accuracy": MeanItemScores([1, 0, 1, 1]), "fr/accuracy": MeanItemScores([0.5, 0, 1], scale=100.0)}
    )
    return {
        "student\ttatoeba": hits,
        "student\tsts": {"en-de/spearman": CorrelationItemScores(rng.random(9), rng.random(9), rank=True),
                         "en-de/pearson": CorrelationItemScores(rng.random(9), rng.random(9), rank=False)},
        "teacher\tbucc": {"de-en/f1": F1ItemScores([1, 0, 300], [1, 1, 301], [1, 0, 400])},
        "teacher\tmse": {"de/mse": MeanItemScores([1e-9, 1 / 3], scale=1.0)},
    }  # fmt: skip


def test_every_kind_comes_back(tmp_path: Path) -> None:
    before = groups()
    write_item_scores(tmp_path / "s.safetensors", before)
    after = read_item_scores(tmp_path / "s.safetensors")
    assert {g: list(found) for g, found in after.items()} == {g: list(found) for g, found in before.items()}
    for group, found in before.items():
        for key, items in found.items():
            assert after[group][key].value() == items.value()
            assert after[group][key].count == items.count
            np.testing.assert_array_equal(after[group][key].replicates(20, 1), items.replicates(20, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "student.item_scores.safetensors"
    assert find_item_scores(path) is None
    entry = {"tasks": {"de/accuracy": {"tensor": "0", "kind": "mean", "scale": 100.0}}}
    earlier = tmp_path / "student.samples.safetensors"
    save_file({"0": np.array([1.0, 0.0])}, earlier, metadata={"format": "1", "samples": json.dumps(entry)})
    assert find_item_scores(path) == earlier
    assert read_item_scores(earlier)["tasks"]["de/accuracy"].value() == 50.0
    write_item_scores(path, {})
    assert find_item_scores(path) == path


def test_hits_take_a_byte_each_and_parts_of_means_nothing(tmp_path: Path) -> None:
    items = MeanItemScores(np.ones(100_000))
    write_item_scores(tmp_path / "s", {"a": with_means({"de/accuracy": items})})
    assert 100_000 < (tmp_path / "s").stat().st_size < 101_000


def test_no_item_scores_at_all(tmp_path: Path) -> None:
    write_item_scores(tmp_path / "s", {})
    assert read_item_scores(tmp_path / "s") == {}


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(MlkdError, match="E309"):
        read_item_scores(tmp_path / "s")
