"""results.json: round trip, undefined and absent scores, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlkd.errors import MlkdError
from mlkd.report.results import Results, read_results, write_results
from mlkd.tasks.scoring.bootstrap import Comparison
from mlkd.tasks.scoring.item_scores import MeanItemScores


def test_round_trip_keeps_everything(tmp_path: Path, results: Results) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_rows_hold_what_makes_them_comparable(tmp_path: Path, results: Results) -> None:
    write_results(tmp_path / "results.json", results)
    record = json.loads((tmp_path / "results.json").read_text())
    row = next(r for r in record["scores"] if r["language"] == "fr")
    assert row == {
        "task": "tatoeba", "language": "fr", "metric": "accuracy", "protocol": "laser", "count": 1000,
        "higher_is_better": True, "main": True, "data_sha256": "ab" * 32,
        "values": {"student": 70.0, "untrained": None, "teacher": 70.04},
    }  # fmt: skip
    assert next(r for r in record["scores"] if r["task"] == "mse")["values"].keys() == {"student", "untrained"}
    assert [r["main"] for r in record["scores"] if r["metric"] == "xx->en"] == [False]


def test_other_data_or_protocol_is_another_row(results: Results) -> None:
    changed = replace(results.results["teacher"][0], protocol="xtreme")
    results.results["teacher"][0] = changed
    rows = [(key.protocol, list(values)) for key, values in results.rows().items() if key.language == "fr"]
    assert rows == [("laser", ["student", "untrained"]), ("xtreme", ["teacher"])]


def test_not_a_number_becomes_undefined(tmp_path: Path, results: Results) -> None:
    score = results.results["student"][1].scores[0]
    results.results["student"][1].scores[0] = replace(score, value=float("nan"))
    results.results["student"][1].details["mining"]["de-en"]["threshold"] = float("inf")
    write_results(tmp_path / "results.json", results)
    again = read_results(tmp_path / "results.json").results["student"][1]
    assert again.scores[0].value is None
    assert again.details["mining"]["de-en"]["threshold"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{broken", "not JSON"),
        ('{"format": 9, "mlkd": "7.0"}', "written by mlkd 7.0, format 9; this mlkd reads 1 to 2"),
        ("[1]", "format None"),
        ('{"format": 1, "systems": ["a"]}', "not a results file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(MlkdError, match="E309") as caught:
        read_results(tmp_path / "results.json")
    assert words in str(caught.value)


def compared(results: Results) -> Results:
    scored = ("tatoeba", "laser", "ab" * 32, "de", "accuracy")
    results.comparisons.append(Comparison(*scored, "student", "teacher", 22.14, 20.0, 24.0, 0.001, 0.002))
    return results


def test_comparisons_are_kept_and_read_from_either_side(tmp_path: Path, results: Results) -> None:
    write_results(tmp_path / "results.json", compared(results))
    again = read_results(tmp_path / "results.json")
    assert again == results
    row = next(key for key in again.rows() if (key.task, key.language) == ("tatoeba", "de"))
    assert again.comparison(row, "student", "teacher") == results.comparisons[0]
    other = again.comparison(row, "teacher", "student")
    assert other is not None
    assert (other.first, other.difference, other.low, other.high) == ("teacher", -22.14, -24.0, -20.0)
    assert (other.p_value, other.p_holm) == (0.001, 0.002)
    assert again.comparison(row, "student", "untrained") is None
    assert again.comparison(replace(row, language="fr"), "student", "teacher") is None
    assert again.comparison(replace(row, data_sha256="cd" * 32), "student", "teacher") is None


def test_format_1_is_read(tmp_path: Path, results: Results) -> None:
    path = tmp_path / "results.json"
    write_results(path, results)
    record = json.loads(path.read_text())
    assert record["format"] == 2
    del record["comparisons"]
    path.write_text(json.dumps(record | {"format": 1, "mlkd": "0.0.9"}))
    assert read_results(path) == replace(results, mlkd="0.0.9")


def with_item_scores(results: Results) -> Results:
    hits = MeanItemScores([1.0] * 70 + [0.0] * 30)
    student = results.results["student"][0]
    scores = [replace(s, value=70.0) if s.language == "fr" else s for s in student.scores]
    results.results["student"][0] = replace(student, scores=scores, item_scores={"fr/accuracy": hits})
    return results


def test_item_scores_stand_beside_the_results(tmp_path: Path, results: Results) -> None:
    path = tmp_path / "results.json"
    write_results(path, with_item_scores(results))
    assert read_results(path).results["student"][0].item_scores == {}
    read = read_results(path, with_item_scores=True).results
    assert {key: items.value() for key, items in read["student"][0].item_scores.items()} == {"fr/accuracy": 70.0}
    assert read["teacher"][0].item_scores == {}
    # Under the name that it had in earlier versions.
    (tmp_path / "item_scores.safetensors").rename(tmp_path / "samples.safetensors")
    earlier = read_results(path, with_item_scores=True).results
    assert list(earlier["student"][0].item_scores) == ["fr/accuracy"]
    (tmp_path / "samples.safetensors").unlink()
    assert read_results(path, with_item_scores=True).results["student"][0].item_scores == {}


def test_item_scores_of_another_evaluation_are_refused(tmp_path: Path, results: Results) -> None:
    path = tmp_path / "results.json"
    write_results(path, with_item_scores(results))
    path.write_text(path.read_text().replace('"student": 70.0', '"student": 71.0'))
    with pytest.raises(MlkdError, match=r"E309.*gives 70.0 for tatoeba/fr/accuracy of 'student', results.json 71.0"):
        read_results(path, with_item_scores=True)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match="E301"):
        read_results(tmp_path / "results.json")
