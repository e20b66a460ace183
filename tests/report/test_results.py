"""results.json: round trip, undefined and absent scores, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlkd.errors import MlkdError
from mlkd.report.results import Results, read_results, write_results


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
        ('{"format": 9, "mlkd": "7.0"}', "written by mlkd 7.0, format 9; this mlkd reads 1"),
        ("[1]", "format None"),
        ('{"format": 1, "systems": ["a"]}', "not a results file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(MlkdError, match="E309") as caught:
        read_results(tmp_path / "results.json")
    assert words in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MlkdError, match="E301"):
        read_results(tmp_path / "results.json")
