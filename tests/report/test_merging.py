"""Results of several files: what stands in one row, what is refused and in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlkd.errors import MlkdError
from mlkd.report.merging import Merged, merge_results
from mlkd.report.results import Results
from mlkd.tasks.scoring.bootstrap import compare_systems
from mlkd.tasks.scoring.item_scores import MeanItemScores
from mlkd.tasks.scoring.language_means import with_means
from mlkd.tasks.scoring.scores import TaskResult, scores_from_items

A, B = Path("runs/a/results.json"), Path("runs/b/results.json")


def tatoeba(seed: int, languages: tuple[str, ...] = ("de", "fr"), **changes: Any) -> TaskResult:
    rng = np.random.default_rng(seed)
    item_scores = with_means({f"{name}/accuracy": MeanItemScores(rng.random(200) < 0.6) for name in languages})
    result = TaskResult(
        "tatoeba", "laser", "accuracy", True, "ab" * 32, scores_from_items(item_scores), item_scores=item_scores
    )
    return replace(result, **changes)


def sts(seed: int) -> TaskResult:
    item_scores = with_means({"en-de/spearman": MeanItemScores(np.random.default_rng(seed).random(100))})
    return TaskResult(
        "sts", "cosine", "spearman", True, "cd" * 32, scores_from_items(item_scores), item_scores=item_scores
    )


def results(name: str, *scored: TaskResult, sha256: str | None = None, **described: Any) -> Results:
    facts = described | ({"sha256": sha256} if sha256 else {})
    return Results(systems=[name], results={name: list(scored)}, describe={name: facts}, mlkd="1.2.3")


def merge(first: Results, second: Results, *, allow_partial: bool = False) -> Merged:
    return merge_results({A: first, B: second}, allow_partial=allow_partial, num_resamples=100)


def refusal(first: Results, second: Results, *, allow_partial: bool = False) -> str:
    with pytest.raises(MlkdError) as caught:
        merge(first, second, allow_partial=allow_partial)
    assert {problem.code for problem in caught.value.problems} == {"E322"}
    return str(caught.value)


def test_equal_evaluations_stand_side_by_side_with_paired_tests() -> None:
    ours, theirs = tatoeba(1), tatoeba(2)
    merged = merge(results("x", ours, sts(1)), results("y", theirs, sts(2)))
    assert (merged.num_left_out, merged.reasons) == (0, [])
    assert merged.results.systems == ["x", "y"]
    for key, values in merged.results.rows().items():
        assert set(values) == {"x", "y"}, key
    assert merged.results.describe["x"]["mlkd"] == "1.2.3"
    expected = compare_systems({"x": [ours, sts(1)], "y": [theirs, sts(2)]}, 100)
    assert merged.results.comparisons == expected and len(expected) == 5


def test_without_item_scores_the_tests_of_each_file_stay() -> None:
    pair = results("x", tatoeba(1))
    pair.systems.append("y")
    pair.results["y"] = [tatoeba(2)]
    pair.comparisons = compare_systems(pair.results, 100)
    kept = pair.comparisons
    for name, (result,) in pair.results.items():
        pair.results[name] = [replace(result, item_scores={})]
    merged = merge(pair, results("x", tatoeba(3, item_scores={})))
    assert merged.results.systems == ["x (a)", "y", "x (b)"]
    assert merged.results.comparisons == [replace(c, first="x (a)") for c in kept]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"protocol": "xtreme"}, "task 'tatoeba': protocol is 'laser' in a and 'xtreme' in b"),
        ({"data_sha256": "ef" * 32}, "task 'tatoeba': data_sha256 is 'abababababab' in a and 'efefefefefef' in b"),
    ],
)
def test_another_protocol_or_other_data_is_refused(other: dict[str, str], words: str) -> None:
    found = refusal(results("x", tatoeba(1)), results("y", tatoeba(2, **other)))
    assert words in found
    assert "allow_partial" not in found, "nothing is comparable, so a part is no way out"
    assert words in refusal(results("x", tatoeba(1)), results("y", tatoeba(2, **other)), allow_partial=True)


def test_every_difference_is_told_at_once() -> None:
    found = refusal(results("x", tatoeba(1), sts(1)), results("y", tatoeba(2, data_sha256="ef" * 32, protocol="mteb")))
    assert "protocol is" in found and "data_sha256 is" in found
    assert "task 'sts' is in a and not in b" in found


def test_rows_of_one_file_alone() -> None:
    first, second = results("x", tatoeba(1)), results("y", tatoeba(2, languages=("de",)))
    found = refusal(first, second)
    assert "task 'tatoeba': fr/accuracy (200 items), mean/accuracy (400 items) in a alone" in found
    assert "allow_partial=true shows the part" in found
    merged = merge(first, second, allow_partial=True)
    assert [key.language for key in merged.results.rows()] == ["de"]
    assert [c.language for c in merged.results.comparisons] == ["de"]
    assert merged.num_left_out == 3 and len(merged.reasons) == 2


def test_a_task_of_one_file_is_left_out_when_a_part_is_allowed() -> None:
    first, second = results("x", tatoeba(1), sts(1)), results("y", tatoeba(2))
    merged = merge(first, second, allow_partial=True)
    assert {key.task for key in merged.results.rows()} == {"tatoeba"}
    assert (merged.num_left_out, merged.reasons) == (2, ["task 'sts' is in a and not in b"])


def test_one_name_for_two_models_is_told_apart() -> None:
    merged = merge(results("student", tatoeba(1), sha256="1"), results("student", tatoeba(2), sha256="2"))
    assert merged.results.systems == ["student (a)", "student (b)"]
    assert merged.results.describe["student (b)"]["sha256"] == "2"
    by_layer = merge(results("m", tatoeba(1), sha256="1", layer=3), results("m", tatoeba(2), sha256="1"))
    assert by_layer.results.systems == ["m (a)", "m (b)"]
    unknown = merge(results("untrained", tatoeba(1)), results("untrained", tatoeba(1)))
    assert unknown.results.systems == ["untrained (a)", "untrained (b)"]


def test_the_same_model_with_the_same_scores_is_one_system() -> None:
    same = merge(results("teacher", tatoeba(1), sha256="1"), results("teacher", tatoeba(1), sha256="1"))
    assert same.results.systems == ["teacher"]
    otherwise = merge(results("teacher", tatoeba(1), sha256="1"), results("teacher", tatoeba(2), sha256="1"))
    assert otherwise.results.systems == ["teacher (a)", "teacher (b)"]
