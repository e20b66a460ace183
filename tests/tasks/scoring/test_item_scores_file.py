"""Samples on disk: the same numbers again, whatever they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlkd.errors import MlkdError
from mlkd.tasks.scoring.item_scores import CorrelationSample, F1Sample, MeanSample, Sample
from mlkd.tasks.scoring.item_scores_file import read_samples, write_samples
from mlkd.tasks.scoring.language_means import with_means


def groups() -> dict[str, dict[str, Sample]]:
    rng = np.random.default_rng(0)
    hits = with_means({"de/accuracy": MeanSample([1, 0, 1, 1]), "fr/accuracy": MeanSample([0.5, 0, 1], scale=100.0)})
    return {
        "student\ttatoeba": hits,
        "student\tsts": {"en-de/spearman": CorrelationSample(rng.random(9), rng.random(9), rank=True),
                         "en-de/pearson": CorrelationSample(rng.random(9), rng.random(9), rank=False)},
        "teacher\tbucc": {"de-en/f1": F1Sample([1, 0, 300], [1, 1, 301], [1, 0, 400])},
        "teacher\tmse": {"de/mse": MeanSample([1e-9, 1 / 3], scale=1.0)},
    }  # fmt: skip


def test_every_kind_comes_back(tmp_path: Path) -> None:
    before = groups()
    write_samples(tmp_path / "s.safetensors", before)
    after = read_samples(tmp_path / "s.safetensors")
    assert {g: list(found) for g, found in after.items()} == {g: list(found) for g, found in before.items()}
    for group, found in before.items():
        for key, sample in found.items():
            assert after[group][key].value() == sample.value()
            assert after[group][key].count == sample.count
            np.testing.assert_array_equal(after[group][key].replicates(20, 1), sample.replicates(20, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_hits_take_a_byte_each_and_parts_of_means_nothing(tmp_path: Path) -> None:
    sample = MeanSample(np.ones(100_000))
    write_samples(tmp_path / "s", {"a": with_means({"de/accuracy": sample})})
    assert 100_000 < (tmp_path / "s").stat().st_size < 101_000


def test_no_samples_at_all(tmp_path: Path) -> None:
    write_samples(tmp_path / "s", {})
    assert read_samples(tmp_path / "s") == {}


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(MlkdError, match="E309"):
        read_samples(tmp_path / "s")
