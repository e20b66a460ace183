"""Efficiency: parameters and tokens counted by hand, a clock that is known, memory that is really taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mlkd.errors import MlkdError
from mlkd.evaluation.evaluator import Evaluator
from mlkd.models.serialization import load_encoder
from mlkd.tasks import efficiency
from mlkd.tasks.efficiency import EfficiencyTask, peak_bytes, sizes

Write = Callable[..., str]
CPU = torch.device("cpu")


class SmallEncoder(nn.Module):
    """7 pieces of 3 numbers, a dense 3 -> 2 with bias; a text has as many tokens as words. Counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.pieces = nn.Embedding(7, 3)
        self.backbone.get_input_embeddings = lambda: self.backbone.pieces  # type: ignore[assignment]
        self.dense = nn.Linear(3, 2)
        self.batches: list[int] = []

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.zeros(len(text.split()), dtype=np.int32) for text in texts]

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.batches.append(len(texts))
        return torch.zeros(len(texts), 2)


def test_sizes_counted_by_hand() -> None:
    found = sizes(SmallEncoder())
    assert found == {"weights_mb": 4 * 29 / 2**20, "parameters": 29, "parameters_without_embeddings": 8}
    assert sizes(nn.Linear(3, 2))["parameters_without_embeddings"] is None  # type: ignore[arg-type]
    half = SmallEncoder().half()
    assert sizes(half)["weights_mb"] == 2 * 29 / 2**20


def test_speed_is_the_median_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Passes take 1, 9 and 2 seconds.
    clock = iter([0.0, 1.0, 10.0, 19.0, 20.0, 22.0])
    monkeypatch.setattr(efficiency.time, "perf_counter", lambda: next(clock))
    encoder = SmallEncoder()
    task = EfficiencyTask(batch_size=2, num_warmup_passes=2, num_passes=3)
    result = task.score(["one", "two words", "now three words"], encoder)
    metrics = result.as_metrics()
    assert metrics["efficiency/mean/sentences_per_s"] == 1.5
    assert metrics["efficiency/mean/tokens_per_s"] == 3.0
    assert metrics["efficiency/mean/dimension"] == 2 and metrics["efficiency/mean/parameters"] == 29
    assert encoder.batches == [2, 1] * 5
    assert result.details == {"seconds": [1.0, 9.0, 2.0], "num_tokens": 6}
    assert result.main == "sentences_per_s" and result.higher_is_better
    assert "batch of 2, median of 3 passes, " in result.protocol and "threads, float32" in result.protocol
    assert not result.item_scores


def test_an_encoder_that_only_encodes_leaves_the_rest_undefined(hash_encoder: Any) -> None:
    result = EfficiencyTask(num_passes=1).score(["a", "b"], hash_encoder())
    undefined = {score.metric for score in result.scores if score.value is None}
    assert undefined >= {"tokens_per_s", "weights_mb", "parameters", "parameters_without_embeddings"}
    assert result.as_metrics()["efficiency/mean/dimension"] == 24
    assert result.as_metrics()["efficiency/mean/sentences_per_s"] > 0


@pytest.mark.skipif(not efficiency._STATM.exists(), reason="resident memory is read from /proc")
def test_memory_that_is_given_back_is_seen() -> None:
    def take() -> None:
        block = np.ones(2**26, dtype=np.uint8)
        time.sleep(0.1)
        assert block[-1] == 1

    found = peak_bytes(take, CPU)
    assert found is not None and 2**26 * 0.9 < found < 2**26 * 1.5
    calm = peak_bytes(lambda: time.sleep(0.02), CPU)
    assert calm is not None and calm < 2**22


def test_memory_is_undefined_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(efficiency, "_STATM", tmp_path / "absent")
    ran: list[int] = []
    assert peak_bytes(lambda: ran.append(1), CPU) is None and ran == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_the_device() -> None:
    device = torch.device("cuda:0")
    found = peak_bytes(lambda: torch.ones(2**20, device=device).sum().item(), device)  # type: ignore[arg-type]
    assert found is not None and 2**22 <= found < 2**23


def test_evaluations_measure_the_bare_encoder() -> None:
    task = EfficiencyTask(batch_size=10**6, num_passes=2, languages=["en"])
    encoder = SmallEncoder()
    (result,) = Evaluator.load([task]).score(encoder)
    # A cache would have asked once.
    assert len(encoder.batches) == 3
    assert result.as_metrics()["efficiency/mean/parameters"] == 29


def test_texts_of_a_file_or_embedded(write: Write) -> None:
    path = write("texts", ["one"], [" "], ["two"], ["three"])
    assert EfficiencyTask(path=path).load() == ["one", "two", "three"]
    task = EfficiencyTask(path=path, max_texts=2)
    assert list(task.texts(task.load())) == ["one", "two"]
    english = EfficiencyTask(languages=["en"], max_texts=None).load()
    everything = EfficiencyTask(max_texts=None).load()
    assert len(everything) == 5 * len(english) > 1000 and everything[::5] == english
    assert EfficiencyTask().load() == everything[:320]
    with pytest.raises(MlkdError, match=r"E207.*no 'fr'"):
        EfficiencyTask(languages=["fr"]).load()
    with pytest.raises(MlkdError, match=r"E303.*no line with text"):
        EfficiencyTask(path=write("blank", [" "])).load()


@pytest.mark.parametrize("name", ["max_texts", "batch_size", "num_warmup_passes", "num_passes"])
def test_bad_fields(name: str) -> None:
    with pytest.raises(MlkdError, match=rf"E204.*{name}.*>= 1 \(got 0\)"):
        EfficiencyTask(**{name: 0})


def test_a_transformer_tells_its_sizes(tiny_bert: Path) -> None:
    encoder = load_encoder(str(tiny_bert))
    result = EfficiencyTask(num_passes=1, max_texts=10).score(["a short text"] * 10, encoder)
    metrics = {key.split("/")[2]: value for key, value in result.as_metrics().items()}
    total = sum(parameter.numel() for parameter in encoder.parameters())
    embeddings = encoder.backbone.config.vocab_size * encoder.backbone.config.hidden_size  # type: ignore[union-attr, operator]
    assert metrics["parameters"] == total and metrics["parameters_without_embeddings"] == total - embeddings > 0
    assert metrics["dimension"] == encoder.dimension
    assert result.details["num_tokens"] == 10 * len(encoder.tokenize(["a short text"])[0])
