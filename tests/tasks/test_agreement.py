"""Agreement: equal to scipy, perfect for a student that puts translations in one place, aligned rows alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.tasks.agreement import AgreementTask

Write = Callable[..., str]
HEADER = ["score", "en1", "en2", "de1", "de2"]
ROWS = [[f"{row % 6}", f"a{row}", f"b{row}", f"A{row}", f"B{row}"] for row in range(40)]


def _cosines(encoder: Any, first: list[str], second: list[str]) -> list[float]:
    return torch.nn.functional.cosine_similarity(encoder.encode(first), encoder.encode(second)).tolist()


def test_equals_scipy_over_the_students_and_the_teachers_cosines(write: Write, hash_encoder: Any) -> None:
    from scipy.stats import pearsonr, spearmanr

    task = AgreementTask(path=write("wide.tsv", HEADER, *ROWS), pairs=["en-de", "de-de"])
    teacher = hash_encoder(12)
    student = hash_encoder(8, key=str.lower, noise=0.5)
    result = task.score(task.load(), student, teacher)
    wanted = _cosines(teacher, [r[1] for r in ROWS], [r[2] for r in ROWS])
    for pair, left in {"en-de": 1, "de-de": 3}.items():
        found = _cosines(student, [r[left] for r in ROWS], [r[4] for r in ROWS])
        assert result.as_metrics()[f"agreement/{pair}/spearman"] == pytest.approx(100 * spearmanr(found, wanted)[0])
        assert result.as_metrics()[f"agreement/{pair}/pearson"] == pytest.approx(100 * pearsonr(found, wanted)[0])
    assert list(result.item_scores) == ["en-de/spearman", "de-de/spearman", "mean/spearman"]
    assert result.item_scores["mean/spearman"].value() == result.as_metrics()["agreement/mean/spearman"]
    # The teacher is asked for English, the student for its own languages.
    assert {text[0] for text in teacher.asked if not text[0].isupper()} == {"a", "b"}


def test_a_student_that_puts_translations_in_one_place_agrees_fully(write: Write, hash_encoder: Any) -> None:
    task = AgreementTask(path=write("wide.tsv", HEADER, *ROWS), pairs=["en-en", "en-de", "de-de"])
    metrics = task.score(task.load(), hash_encoder(key=str.lower), hash_encoder()).as_metrics()
    assert metrics == pytest.approx(dict.fromkeys(metrics, 100.0)) and len(metrics) == 8


def test_a_student_that_knows_one_vector_has_no_score(write: Write, hash_encoder: Any) -> None:
    task = AgreementTask(path=write("wide.tsv", HEADER, *ROWS), pairs=["en-de"])
    result = task.score(task.load(), hash_encoder(key=lambda text: ""), hash_encoder())
    assert result.as_metrics() == {} and "en-de/spearman" in result.details["undefined"]


def test_files_of_one_language_each(write: Write) -> None:
    for language, start in (("en", 1), ("de", 3)):
        header = ["score", "sentence1", "sentence2"]
        path = write(f"stsb.{language}.tsv", header, *([row[0], *row[start : start + 2]] for row in ROWS))
    (found,) = AgreementTask(path=path.replace(".de.", ".{language}."), pairs=["de-en"]).load()
    assert (found.translated.first[7], found.translated.second[7]) == ("A7", "b7")
    assert (found.source.first[7], found.source.second[7]) == ("a7", "b7")


def test_embedded_set() -> None:
    sets = AgreementTask().load()
    assert [found.translated.pair for found in sets] == AgreementTask().pairs
    assert all(len(found.translated.first) == len(found.source.first) >= 50 for found in sets)


@pytest.mark.parametrize("fields", [{"path": "STS.{pair}.txt"}, {"dataset": "a/b", "subset": "{pair}"}])
def test_languages_must_be_row_aligned(fields: dict[str, str]) -> None:
    with pytest.raises(MlkdError, match=r"E204.*needs row-aligned languages"):
        AgreementTask(**fields)
