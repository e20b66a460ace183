"""What an evaluation may be asked: one of three things, and encoders of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.errors import MlkdError
from mlkd.models.pooling import Pooling
from mlkd.models.spec import EncoderSpec
from mlkd.tasks.tatoeba import TatoebaTask

TASK = {"tatoeba": TatoebaTask()}


def problems(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(MlkdError) as caught:
        EvaluateConfig(**({"task": TASK} | fields))
    return [(p.code, p.where) for p in caught.value.problems]


def test_encoders_with_settings_of_all_and_their_own() -> None:
    config = EvaluateConfig(
        checkpoint=["outputs/a", {"model": "bert", "layer": 8, "name": "mBERT"}, {"model": "e5", "prompt": "query: "}],
        task=TASK, pooling=Pooling.cls, teacher=EncoderSpec(model="labse", pooling=Pooling.max), max_length=64,
    )  # fmt: skip
    assert [(e.label, e.pooling, e.layer, e.prompt, e.max_length) for e in config.encoders] == [
        ("outputs/a", Pooling.cls, None, None, 64),
        ("mBERT", Pooling.cls, 8, None, 64),
        ("e5", Pooling.cls, None, "query: ", 64),
    ]
    teacher = config.teacher_encoder
    assert teacher is not None
    assert (teacher.model, teacher.pooling, teacher.max_length) == ("labse", Pooling.max, 64)
    assert EvaluateConfig(checkpoint={"model": "x"}, task=TASK).encoders[0].label == "x"
    assert EvaluateConfig(checkpoint="x", task=TASK).teacher_encoder is None


def test_files_to_compare(tmp_path: Path) -> None:
    config = EvaluateConfig(compare=[str(tmp_path), "b/results.json"])
    assert config.compared_files == [tmp_path / "results.json", Path("b/results.json")]
    assert config.encoders == []


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, [("E205", "checkpoint")]),
        ({"checkpoint": "a", "task": {}}, [("E205", "task")]),
        ({"checkpoint": "a", "compare": ["a", "b"]}, [("E209", "compare")]),
        ({"export_texts": "f", "compare": ["a", "b"]}, [("E209", "export_texts")]),
        ({"compare": ["a"]}, [("E204", "compare")]),
        ({"checkpoint": "a", "num_resamples": 10}, [("E204", "num_resamples")]),
        ({"checkpoint": "a", "max_length": 2}, [("E204", "max_length")]),
        ({"checkpoint": "a", "teacher": EncoderSpec(max_length=2)}, [("E204", "teacher.max_length")]),
        ({"checkpoint": ["a", "a"]}, [("E209", "checkpoint")]),
        ({"checkpoint": ["a", {"model": "b", "layr": 3}]}, [("E201", "checkpoint[1].layr")]),
        ({"checkpoint": {"model": "b", "layer": "x"}}, [("E203", "checkpoint.layer")]),
        ({"checkpoint": [{"model": "b"}, {"model": "b", "layer": 3}]}, [("E209", "checkpoint")]),
    ],
)
def test_what_is_refused(fields: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert problems(**fields) == found


def test_no_intervals_may_be_asked_for() -> None:
    assert EvaluateConfig(checkpoint="a", task=TASK, num_resamples=0).num_resamples == 0
