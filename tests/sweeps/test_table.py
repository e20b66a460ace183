"""The table of a sweep: rows, groups of seeds, and its three files, each with numbers worked out by hand."""

from __future__ import annotations

import csv
import io

from mlkd.report.results import ScoreKey
from mlkd.sweeps.table import (
    SweepJob,
    SweepTable,
    column_names,
    differing_keys,
    format_seconds,
    print_table,
    to_csv,
    to_markdown,
    to_record,
)

TATOEBA = ScoreKey("tatoeba", "laser", "a" * 64, "mean", "accuracy", 20, True, True)
MSE = ScoreKey("mse", "", "b" * 64, "mean", "mse", 20, True, False)


def job(name: str, loss: str, seed: int, accuracy: float | None, mse: float | None, **more: object) -> SweepJob:
    overrides = {"loss": loss, "seed": str(seed), "optim.lr": "1e-3"}
    settings: dict[str, object] = {"state": "finished", "seconds": 61.0, "scores": {TATOEBA: accuracy, MSE: mse}}
    return SweepJob(name, overrides, **(settings | more))  # type: ignore[arg-type]


FAILED = job("4", "ld", 1, None, None, state="failed", scores={}, seconds=0.4, error="MlkdError: no | good\nat all")
JOBS = [
    job("0", "ams", 1, 50.0, 0.5),
    job("1", "ams", 2, 60.0, 0.25),
    job("2", "fd", 1, 70.0, None),
    job("3", "fd", 2, 80.0, 0.125),
    FAILED,
]


def test_groups_of_seeds() -> None:
    table = SweepTable.build(JOBS)
    assert table.keys == ["loss", "seed"]
    assert table.columns == [TATOEBA, MSE]
    assert table.title == "5 jobs: 4 finished, 1 failed"
    ams, fd = table.groups
    assert ams.overrides == {"loss": "ams"}
    assert [member.name for member in ams.jobs] == ["0", "1"]
    assert ams.mean == {TATOEBA: 55.0, MSE: 0.375}
    # ((50 - 55)^2 + (60 - 55)^2) / (2 - 1) = 50; (0.125^2 + 0.125^2) / 1 = 0.03125
    assert ams.sd == {TATOEBA: 50.0**0.5, MSE: 0.03125**0.5}
    assert fd.mean == {TATOEBA: 75.0, MSE: None}


def test_what_did_not_finish_is_in_no_mean() -> None:
    waiting = job("5", "ams", 3, 99.0, 9.0, state="running")
    table = SweepTable.build([*JOBS[:2], waiting])
    assert [member.name for member in table.groups[0].jobs] == ["0", "1"]
    assert SweepTable.build([JOBS[0], waiting]).groups == []


def test_keys_that_differ() -> None:
    one = SweepJob("0", {"a": "1", "b": "x", "c": "1"}, "finished")
    two = SweepJob("1", {"a": "1", "b": "y"}, "finished")
    assert differing_keys([one, two]) == ["b", "c"]
    assert differing_keys([one]) == []


def test_markdown() -> None:
    sd = "7.1"  # of 50 ** 0.5
    assert to_markdown(SweepTable.build(JOBS)) == (
        "### 5 jobs: 4 finished, 1 failed\n\n"
        "| job | loss | seed | tatoeba accuracy (%) | mse (x100) | time | state |\n"
        "|:---|:---|:---|---:|---:|---:|:---|\n"
        "| 0 | ams | 1 | 50.0 | 0.500 | 1:01 | finished |\n"
        "| 1 | ams | 2 | 60.0 | 0.250 | 1:01 | finished |\n"
        f"| **mean** | **ams** |  | **55.0 ± {sd}** | **0.375 ± 0.177** |  | **n = 2** |\n"
        "| 2 | fd | 1 | 70.0 | undefined | 1:01 | finished |\n"
        "| 3 | fd | 2 | 80.0 | 0.125 | 1:01 | finished |\n"
        f"| **mean** | **fd** |  | **75.0 ± {sd}** | **undefined** |  | **n = 2** |\n"
        "| 4 | ld | 1 | - | - | 0:00 | failed |\n\n"
        "- job 4: MlkdError: no | good at all\n"
        "± is the sample standard deviation over n seeds.\n"
    )


def test_csv_keeps_every_digit() -> None:
    third = job("0", "ams", 1, 100 / 3, 0.5)
    rows = list(csv.DictReader(io.StringIO(to_csv(SweepTable.build([third, *JOBS[1:]])))))
    assert [row["row"] for row in rows] == ["job"] * 5 + ["mean", "sd"] * 2
    assert float(rows[0]["tatoeba accuracy (%)"]) == 100 / 3
    assert rows[2]["mse (x100)"] == ""
    assert (rows[4]["state"], rows[4]["error"]) == ("failed", "MlkdError: no | good\nat all")
    mean, sd = rows[5:7]
    assert (mean["loss"], mean["seed"], mean["n"]) == ("ams", "", "2")
    assert float(mean["tatoeba accuracy (%)"]) == (100 / 3 + 60) / 2
    assert abs(float(sd["tatoeba accuracy (%)"]) - (60 - 100 / 3) / 2**0.5) < 1e-12


def test_record_holds_columns_jobs_and_groups() -> None:
    record = to_record(SweepTable.build(JOBS))
    assert record["columns"][1]["task"] == "mse"
    assert record["columns"][1]["higher_is_better"] is False
    assert record["jobs"][2]["scores"] == [70.0, None]
    assert record["jobs"][4]["scores"] == [None, None]
    assert record["groups"][0] == {
        "overrides": {"loss": "ams"}, "jobs": ["0", "1"], "n": 2, "mean": [55.0, 0.375],
        "sd": [50.0**0.5, 0.03125**0.5],
    }  # fmt: skip


def test_numbers_of_other_data_get_their_own_column() -> None:
    other_data = ScoreKey("tatoeba", "laser", "c" * 64, "mean", "accuracy", 20, True, True)
    other_protocol = ScoreKey("tatoeba", "xtreme", "a" * 64, "mean", "accuracy", 20, True, True)
    assert column_names([TATOEBA, MSE]) == ["tatoeba accuracy (%)", "mse (x100)"]
    assert column_names([TATOEBA, other_data, other_protocol]) == [
        "tatoeba accuracy (%) [laser] [data aaaaaaaa]",
        "tatoeba accuracy (%) [laser] [data cccccccc]",
        "tatoeba accuracy (%) [xtreme]",
    ]


def test_time() -> None:
    times = [format_seconds(seconds) for seconds in (None, 0.4, 59.6, 3599.0, 3600.0, 90061.0)]
    assert times == ["", "0:00", "1:00", "59:59", "1:00:00", "25:01:01"]


def test_terminal_shows_all_rows_and_errors() -> None:
    stream = io.StringIO()
    print_table(SweepTable.build(JOBS), stream)
    text = stream.getvalue()
    assert text.startswith("5 jobs: 4 finished, 1 failed\n")
    assert "55.0 ± 7.1" in text
    assert "job 4 failed: MlkdError: no | good" in text
    assert len([line for line in text.splitlines() if line.rstrip().endswith(("finished", "n = 2"))]) == 6


def test_best_job_and_equal_errors_are_told_once() -> None:
    assert SweepTable.build(JOBS).best == ""
    seeds = [job(str(n), "ams", n, 50.0, 0.5, objective=float(n)) for n in range(3)]
    assert SweepTable.build(seeds).best == ""
    scored = [job("0", "ams", 1, 50.0, 0.5, objective=-0.5), job("1", "fd", 1, 40.0, 0.25, objective=-0.25)]
    failed = [job(name, "ld", 2, None, None, state="failed", scores={}, error="no such file") for name in "23"]
    table = SweepTable.build([*scored, *failed, job("4", "fd", 3, 99.0, 0.1, state="running", objective=0.0)])
    assert table.best.endswith("(evaluation.metric): job 1 (loss=fd seed=1)")
    stream = io.StringIO()
    print_table(table, stream)
    for text in (stream.getvalue(), to_markdown(table)):
        assert text.count("no such file") == 1
        assert "jobs 2, 3" in text
        assert table.best in text
