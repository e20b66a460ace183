"""Each text is taught once; a killed run goes on where it was, and a wrong cache is not believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.models.model_folder import folder_sha256
from mlkd.models.pooling import Pooling
from mlkd.models.sentence_encoder import SentenceEncoder
from mlkd.models.serialization import save_encoder
from mlkd.models.spec import LazyEncoder
from mlkd.teacher import targets as module
from mlkd.teacher.encoder import Teacher
from mlkd.teacher.targets import TeacherTargets
from mlkd.teacher.vector_store import unit_norm


class CountingTeacher:
    """Vectors that follow from the text; remembers what it was asked, and fails at call number `fail_at`."""

    def __init__(self, fail_at: int | None = None, nan_for: str = "", shift: float = 0.0) -> None:
        self.asked: list[str] = []
        self.calls = 0
        self.fail_at, self.nan_for, self.shift = fail_at, nan_for, shift

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        self.asked += texts
        rows = [[len(t) / 9 + self.shift, sum(map(ord, t)) % 97 / 97] for t in texts]
        vectors = torch.tensor(rows).view(-1, 2)
        vectors[[t == self.nan_for for t in texts], 1] = torch.nan
        return vectors

    def lazy(self) -> LazyEncoder:
        def load() -> Any:
            return self

        return LazyEncoder(load)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_TEXTS", 10)


ON_CPU: dict[str, Any] = {"device": torch.device("cpu"), "precision": None, "max_tokens": 2048}
TEXTS = [f"text {i}" for i in range(35)]


def test_only_missing_texts_are_encoded(tmp_path: Path) -> None:
    first = CountingTeacher()
    targets = TeacherTargets(tmp_path, first.lazy())
    seen: list[tuple[int, int]] = []
    positions = targets.ensure(TEXTS, lambda done, total: seen.append((done, total)))
    assert sorted(first.asked) == sorted(TEXTS)
    assert seen == [(10, 35), (20, 35), (30, 35), (35, 35)]
    torch.testing.assert_close(targets.rows(positions), CountingTeacher().encode(TEXTS))

    second = CountingTeacher()
    more = [*TEXTS[20:], "new", "newer"]
    targets = TeacherTargets(tmp_path, second.lazy())
    torch.testing.assert_close(targets.rows(targets.ensure(more)), CountingTeacher().encode(more))
    assert sorted(second.asked) == ["new", "newer"]


def test_a_killed_run_loses_at_most_one_shard(tmp_path: Path) -> None:
    killed = CountingTeacher(fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        TeacherTargets(tmp_path, killed.lazy()).ensure(TEXTS)
    assert len(killed.asked) == 20
    second = CountingTeacher()
    targets = TeacherTargets(tmp_path, second.lazy())
    positions = targets.ensure(TEXTS)
    assert len(second.asked) == 15 and not set(second.asked) & set(killed.asked)
    torch.testing.assert_close(targets.rows(positions), CountingTeacher().encode(TEXTS))


def test_an_interruption_between_shards_keeps_them(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TeacherTargets(tmp_path, CountingTeacher().lazy()).ensure(TEXTS, stop)
    second = CountingTeacher()
    TeacherTargets(tmp_path, second.lazy()).ensure(TEXTS)
    assert len(second.asked) == 25


@pytest.mark.parametrize("value", ["text 7", "text 34"])
def test_nan_vectors_are_refused_with_their_text(tmp_path: Path, value: str) -> None:
    with pytest.raises(MlkdError) as caught:
        TeacherTargets(tmp_path, CountingTeacher(nan_for=value).lazy()).ensure(TEXTS)
    (problem,) = caught.value.problems
    assert problem.code == "E321" and f"'{value}'" in problem.what and "teacher_precision=fp32" in problem.remedy
    assert len(TeacherTargets(tmp_path, CountingTeacher().lazy()).ensure(TEXTS)) == 35  # nothing bad was kept


def test_a_warm_cache_asks_the_teacher_for_a_sample_only(tmp_path: Path) -> None:
    TeacherTargets(tmp_path, CountingTeacher().lazy()).ensure(TEXTS)
    second = CountingTeacher()
    TeacherTargets(tmp_path, second.lazy()).ensure(TEXTS)
    assert second.calls == 1 and len(second.asked) == module.CHECKED_TEXTS and set(second.asked) <= set(TEXTS)


def test_a_cache_that_disagrees_with_the_teacher_is_refused(tmp_path: Path) -> None:
    TeacherTargets(tmp_path, CountingTeacher().lazy()).ensure(TEXTS)
    TeacherTargets(tmp_path, CountingTeacher(shift=0.005).lazy()).ensure(TEXTS)  # rounding
    for other in (CountingTeacher(shift=0.2), CountingTeacher(shift=float("nan"))):
        with pytest.raises(MlkdError) as caught:
            TeacherTargets(tmp_path, other.lazy()).ensure(TEXTS)
        (problem,) = caught.value.problems
        assert (problem.code, problem.where) == ("E321", str(tmp_path)) and "delete" in problem.remedy


def test_a_lazy_teacher_is_loaded_once_and_only_when_asked(tmp_path: Path) -> None:
    loads: list[int] = []

    def load() -> Any:
        loads.append(1)
        return CountingTeacher()

    teacher = LazyEncoder(load)
    targets = TeacherTargets(tmp_path, teacher)
    assert targets.ensure([]).tolist() == [] and not loads
    targets.ensure(TEXTS)
    targets.ensure(TEXTS)
    teacher.encode(["x"])
    assert loads == [1]


def test_teacher_targets_of_a_real_teacher(
    make_encoder: Callable[..., SentenceEncoder], sentences: list[str], tmp_path: Path
) -> None:
    save_encoder(make_encoder(normalize=True), tmp_path / "teacher")
    teacher = Teacher(model=str(tmp_path / "teacher"))
    encoder = teacher.load_on(**ON_CPU)
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.training
    targets = TeacherTargets(tmp_path / "cache", LazyEncoder(lambda: encoder))
    rows = targets.rows(targets.ensure(sentences))
    torch.testing.assert_close(rows, make_encoder(normalize=True).encode(sentences), rtol=0, atol=1e-6)
    assert unit_norm(rows) and not unit_norm(1.02 * rows)


def test_the_teachers_fields_reach_its_encoder(tiny_bert: Path, sentences: list[str]) -> None:
    teacher = Teacher(model=str(tiny_bert), pooling=Pooling.cls, max_length=6)
    encoder = teacher.load_on(**ON_CPU | {"precision": torch.bfloat16})
    assert (encoder.pooling, encoder.text.max_length, encoder.precision) == (Pooling.cls, 6, torch.bfloat16)
    exact = teacher.load_on(**ON_CPU)
    difference = (encoder.encode(sentences) - exact.encode(sentences)).abs().max()
    assert encoder.encode(sentences).dtype is torch.float32 and 1e-5 < difference < 0.2


def test_the_fingerprint_names_all_that_decides_the_vectors(tiny_bert: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path = tiny_bert, precision: torch.dtype | None = None, **settings: Any) -> str:
        return Teacher(model=str(folder), **settings).fingerprint(folder_sha256(folder), precision)

    base = fingerprint()
    assert base == fingerprint(Path(shutil.copytree(tiny_bert, tmp_path / "copy")))
    others = [fingerprint(pooling=Pooling.cls), fingerprint(max_length=8), fingerprint(precision=torch.bfloat16)]
    (tmp_path / "copy" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    others.append(fingerprint(tmp_path / "copy"))
    assert len({base, *others}) == 5


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        Teacher(max_length=3)
    assert [(p.code, p.where) for p in caught.value.problems] == [("E205", "model"), ("E204", "max_length")]
