"""Sweeps end in one table, whatever became of their jobs, and the same command does what is left."""

from __future__ import annotations

import csv
import json
import os
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlkd.config.composition import build_config, compose_config
from mlkd.config.overrides import jobs_with_each_value
from mlkd.config.paths import CONFIG_DIR
from mlkd.config.registry import register_schemas
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.report.results import read_results
from mlkd.runtime.run_folder import RunFolder, RunState, Status
from mlkd.sweeps import job as mlkd_sweep
from mlkd.sweeps.hpo import Interval
from mlkd.sweeps.job import run_job
from mlkd.sweeps.plan import options_params, plan_sweep
from mlkd.sweeps.run import collect, sweep_fingerprint
from mlkd.training import finalize
from mlkd.training.trainer import Trainer

Call = Callable[..., tuple[int, str, str]]
SWEEPS = sorted(path.stem for path in (CONFIG_DIR / "sweep").glob("*.yaml"))
QUICK = "optim.max_steps=2"


def sweep_folder(output: Path) -> Path:
    (folder,) = (output / "multirun/toy").iterdir()
    return folder


def table_of(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return table


def times_of(folder: Path) -> dict[str, int]:
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/student/model.safetensors")}


def test_table_of_seeds_with_a_failing_job(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    command = [*toy.command(tmp_path, QUICK), "data.languages=[de,es],[de,fr]", "seed=1,2"]
    code, out, err = mlkd("train", "-m", *command)
    assert code == 1, err
    assert "error[E101]: 2 of 4 jobs failed: 2, 3" in err
    assert "Traceback" not in err
    folder = sweep_folder(tmp_path)
    record = table_of(folder)
    assert record["keys"] == ["data.languages", "seed"]
    told = [
        (job["job"], job["state"], job["overrides"]["data.languages"], job["overrides"]["seed"])
        for job in record["jobs"]
    ]
    finished, failed = ("finished", "[de,es]"), ("failed", "[de,fr]")
    assert told == [("0", *finished, "1"), ("1", *finished, "2"), ("2", *failed, "1"), ("3", *failed, "2")]
    assert "en-fr.tsv" in record["jobs"][2]["error"]
    (column,) = record["columns"]
    assert (column["task"], column["language"], column["metric"]) == ("tatoeba_file", "mean", "accuracy")
    scores = []
    for name in ("0", "1"):
        rows = read_results(folder / name / "results.json").rows()
        (score,) = [v["student"] for key, v in rows.items() if key.main and key.language == "mean"]
        scores.append(score)
    assert [job["scores"] for job in record["jobs"]] == [[scores[0]], [scores[1]], [None], [None]]
    (group,) = record["groups"]
    assert (group["overrides"], group["n"], group["jobs"]) == ({"data.languages": "[de,es]"}, 2, ["0", "1"])
    assert group["mean"] == [statistics.fmean(scores)]
    assert group["sd"] == [statistics.stdev(scores)]
    with (folder / "sweep.csv").open(newline="") as stream:
        rows_read = list(csv.DictReader(stream))
    assert [row["row"] for row in rows_read] == ["job"] * 4 + ["mean", "sd"]
    assert float(rows_read[1]["tatoeba_file accuracy (%)"]) == scores[1]
    assert "4 jobs: 2 finished, 2 failed" in out
    assert (folder / "sweep.md").read_text().startswith("### 4 jobs: 2 finished, 2 failed\n")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"], status["max_steps"]) == ("failed", 2, 4)

    before, seconds = times_of(folder), [job["seconds"] for job in record["jobs"]]
    assert all(value > 0 for value in seconds[:2])
    code, out, err = mlkd("train", "-m", *command)
    assert code == 1
    assert f"continuing the sweep {folder}" in err
    assert [f"job {n} is finished already" in err for n in range(4)] == [True, True, False, False]
    assert sweep_folder(tmp_path) == folder
    assert times_of(folder) == before
    assert [job["scores"] for job in table_of(folder)["jobs"]] == [job["scores"] for job in record["jobs"]]
    assert [job["seconds"] for job in table_of(folder)["jobs"]][:2] == seconds[:2]


def test_crashed_job_is_done_again(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*toy.unscored.command(tmp_path, QUICK), "seed=1,2"]
    train = mlkd_sweep.train

    def crash(config: TrainConfig, *more: Any) -> Path:
        if config.seed == 1:
            raise RuntimeError("the disk is on fire")
        return train(config, *more)

    monkeypatch.setattr(mlkd_sweep, "train", crash)
    code, _, err = mlkd("train", "-m", *command)
    assert code == 1
    assert "RuntimeError: the disk is on fire" in err
    folder = sweep_folder(tmp_path)
    assert [(job["state"], job["error"]) for job in table_of(folder)["jobs"]] == [
        ("failed", "RuntimeError: the disk is on fire"),
        ("finished", ""),
    ]
    monkeypatch.setattr(mlkd_sweep, "train", train)
    before = times_of(folder)
    code, _, err = mlkd("train", "-m", *command)
    assert code == 0, err
    assert [(job["state"], job["error"]) for job in table_of(folder)["jobs"]] == [("finished", "")] * 2
    assert times_of(folder)["1"] == before["1"]
    code, out, err = mlkd("train", "-m", *command)
    assert (code, "2 jobs: 2 finished" in out, err.count("finished already")) == (0, True, 2)
    assert sweep_folder(tmp_path) == folder
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert mlkd("train", "-m", *command, "resume=false", "dry_run=true")[0] == 0
    assert sweep_folder(tmp_path) == folder  # a dry run leaves nothing behind


def test_interrupted_sweep_tells_what_it_has_and_goes_on(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    forward = Trainer.forward

    def interrupted(self: Trainer, *arguments: Any) -> Any:
        if self.state.step == 3:
            monkeypatch.setattr(Trainer, "forward", forward)
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *arguments)

    monkeypatch.setattr(Trainer, "forward", interrupted)
    command = [*toy.unscored.command(tmp_path, "optim.max_steps=6"), "seed=3,4"]
    code, out, err = mlkd("train", "-m", *command)
    assert code == 130, err
    assert "2 jobs: 1 interrupted, 1 waiting" in out
    folder = sweep_folder(tmp_path)
    states = [(job["job"], job["overrides"]["seed"], job["state"]) for job in table_of(folder)["jobs"]]
    assert states == [("0", "3", "interrupted"), ("1", "4", "waiting")]
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    first_s = table_of(folder)["jobs"][0]["seconds"]
    code, out, err = mlkd("train", "-m", *command)
    assert code == 0, err
    assert "continuing after step 4" in err
    assert "2 jobs: 2 finished" in out
    assert sweep_folder(tmp_path) == folder
    assert table_of(folder)["jobs"][0]["seconds"] > first_s


@pytest.mark.parametrize(
    ("moment", "state", "told"),
    [
        ("load_best", "interrupted", "2 jobs: 1 interrupted, 1 waiting"),
        ("compare_systems", "finished", "2 jobs: 1 finished, 1 waiting"),
    ],
)
def test_signal_during_the_conclusion_of_a_job_ends_the_sweep(
    *, mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, state: str, told: str
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    function = getattr(finalize, moment)

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(finalize, moment, function)
        os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)

    monkeypatch.setattr(finalize, moment, interrupted)
    command = [*toy.command(tmp_path, QUICK), "seed=3,4"]
    code, out, err = mlkd("train", "-m", *command)
    assert code == 130, err
    assert told in out
    folder = sweep_folder(tmp_path)
    assert [job["state"] for job in table_of(folder)["jobs"]] == [state, "waiting"]
    code, out, err = mlkd("train", "-m", *command)
    assert code == 0, err
    assert "2 jobs: 2 finished" in out
    assert ("job 0 is finished already" in err) is (state == "finished")


def test_search_over_an_interval(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="extra optuna is not installed")
    command = [*toy.command(tmp_path, QUICK), "optim.lr=tag(log, interval(1e-4, 1e-1))", "loss=mse,cosine"]
    code, out, err = mlkd("train", *command, "-m", "hpo.trials=2")
    assert code == 0, err
    folder = sweep_folder(tmp_path)
    trials = json.loads((folder / "trials.json").read_text())
    jobs = table_of(folder)["jobs"]
    assert [job["overrides"]["optim.lr"] for job in jobs] == [trial["params"]["optim.lr"] for trial in trials]
    assert [job["scores"] for job in jobs] == [[trial["value"]] for trial in trials]
    for trial, name in zip(trials, ("0", "1"), strict=True):
        assert 1e-4 <= float(trial["params"]["optim.lr"]) <= 1e-1
        assert f"lr: {float(trial['params']['optim.lr'])}\n" in (folder / name / "config.yaml").read_text()
    assert "2 jobs: 2 finished" in out
    before = times_of(folder)
    code, out, err = mlkd("train", *command, "-m", "hpo.trials=3")
    assert code == 0, err
    assert "3 jobs: 3 finished" in out
    assert {name: times_of(folder)[name] for name in before} == before
    assert json.loads((folder / "trials.json").read_text())[:2] == trials


def test_search_by_a_shipped_option(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="extra optuna is not installed")
    code, out, err = mlkd("train", *toy.command(tmp_path, QUICK), "+sweep=optuna", "hpo.trials=2", "optim.lr=1e-3")
    assert code == 0, err
    assert "2 jobs: 2 finished" in out
    for job in table_of(sweep_folder(tmp_path))["jobs"]:
        assert 0.1 <= float(job["overrides"]["loss.alpha"]) <= 1.0
        assert 1.0 <= float(job["overrides"]["loss.beta"]) <= 1e4
        assert float(job["overrides"]["optim.lr"]) == 1e-3


def test_search_needs_optuna(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = mlkd("train", "-m", *toy.command(tmp_path), "optim.lr=interval(1e-4, 1e-1)")
    assert (code, "error[E502]: a sweep over an interval needs Optuna" in err) == (5, True)
    assert list(tmp_path.iterdir()) == []


def test_job_in_a_folder_that_is_not_its_own_changes_no_status(toy: Any, tmp_path: Path) -> None:
    finished = Status(state=RunState.finished, fingerprint="another")
    run = RunFolder(tmp_path / "0")
    run.create()
    run.config.write_text("seed: 5\n")
    run.write_status(finished)
    config = toy.unscored.config(tmp_path, QUICK)
    assert run_job(lambda: config, run.path, ["seed=1"]) is None
    assert run.read_status() == finished


def write_job(folder: Path, overrides: list[str], status: Status | None) -> None:
    run = RunFolder(folder)
    run.create()
    (folder / "job.json").write_text(json.dumps({"overrides": overrides, "seconds": None}))
    if status is not None:
        run.write_status(status)


def test_states_of_jobs_come_from_their_files(tmp_path: Path) -> None:
    running = Status(state=RunState.running)
    write_job(tmp_path / "10", ["+a.b=1", "~task.mse"], Status(state=RunState.interrupted))
    write_job(tmp_path / "9", ["a.b=2"], running)
    write_job(tmp_path / "2", ["a.b=3"], None)
    write_job(tmp_path / "3", ["a.b=4"], Status(state=RunState.failed, error="E"))
    write_job(tmp_path / "4", ["a.b=5"], running)
    with RunFolder(tmp_path / "4").lock():
        jobs = collect(tmp_path, [["a.b=3"], ["a.b=6"]])
    told = [(job.name, job.state, job.error) for job in jobs]
    assert told == [
        ("1", "waiting", ""), ("2", "killed", ""), ("3", "failed", "E"), ("4", "running", ""), ("9", "killed", ""),
        ("10", "interrupted", ""),
    ]  # fmt: skip
    assert jobs[-1].overrides == {"a.b": "1", "~task.mse": ""}


def test_values_are_shown_as_people_type_them(tmp_path: Path) -> None:
    overrides = [r"teacher.model=package\:gte_small", r"data.path='a\:b'"]
    write_job(tmp_path / "0", overrides, Status(state=RunState.interrupted))
    (job,) = collect(tmp_path, [overrides])
    assert job.overrides == {"teacher.model": "package:gte_small", "data.path": r"'a\:b'"}


def test_damaged_results_do_not_cost_the_table(tmp_path: Path) -> None:
    write_job(tmp_path / "0", ["seed=1"], Status(state=RunState.finished))
    RunFolder(tmp_path / "0").results_json.write_text("{")
    (job,) = collect(tmp_path, [])
    assert (job.state, job.scores) == ("finished", {})
    assert "error[E309]: " in job.error


def test_what_names_a_sweep() -> None:
    def name(*overrides: str, yaml: str = "seed: 1\noutput_dir: a\n") -> str:
        return sweep_fingerprint(yaml, overrides)

    same = name("seed=1,2", "optim.lr=1,2")
    for ignored in ("output_dir=b", "cache_dir=c", "resume=true", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                    "hydra.sweep.dir=d", "hpo.trials=9"):  # fmt: skip
        assert name("seed=1,2", "optim.lr=1,2", ignored) == same
    assert name("seed=1,2", "optim.lr=1,2", yaml="seed: 1\noutput_dir: b\n") == same
    others = [
        name("optim.lr=1,2", "seed=1,2"),  # numbers its jobs in another order
        name("seed=1,2", "optim.lr=1,3"),
        name("seed=1,2", "optim.lr=1,2", "hpo.seed=2"),
        name("seed=1,2", "optim.lr=1,2", yaml="seed: 2\n"),
    ]
    assert len({same, *others}) == 5


def test_plan_of_an_option_with_what_the_command_sets(toy: Any, tmp_path: Path) -> None:
    register_schemas()
    sweep = plan_sweep([f"output_dir={tmp_path}", "+sweep=data_size", "data.max_pairs_per_language=7,8", "seed=1,2"])
    assert sweep.parent == tmp_path / "multirun/demo"
    assert [(job[0], job[3]) for job in sweep.planned] == [
        (f"data.max_pairs_per_language={size}", f"seed={seed}") for size in (7, 8) for seed in (1, 2)
    ]
    assert options_params(["+sweep=data_size"]) == ["data.max_pairs_per_language=1000,5000,10000,25000,0"]


def test_plan_of_a_search() -> None:
    pytest.importorskip("optuna", reason="extra optuna is not installed")
    register_schemas()
    sweep = plan_sweep(["+sweep=optuna", "loss.beta=3", "hpo.trials=7"])
    lr = Interval(1e-5, 1e-2, log=True)
    assert sweep.space == {"optim.lr": lr, "loss.alpha": Interval(0.1, 1.0)}
    assert (sweep.hpo.trials, sweep.planned) == (7, [])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_of_every_sweep_is_a_configuration(name: str) -> None:
    register_schemas()
    overrides = [f"+sweep={name}"]
    for job in jobs_with_each_value([*options_params(overrides), *overrides]):
        build_config(compose_config("train", job), TrainConfig)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_says_what_it_shows_and_how_to_start_it(name: str) -> None:
    lines = (CONFIG_DIR / f"sweep/{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    command = lines[2].removeprefix("# ").split()
    assert command[:2] == ["mlkd-train", "-m"]
    assert f"+sweep={name}" in command
    register_schemas()
    plan = command[2:] if name != "optuna" else [text for text in command[2:] if not text.startswith("+sweep")]
    assert plan_sweep(plan).parent.parts[:2] == ("outputs", "multirun")


def test_unknown_sweep_is_told(mlkd: Call) -> None:
    code, _, err = mlkd("train", "sweep=data_sice")
    assert (code, "error[E202]: no sweep 'data_sice'. Close: data_size." in err) == (2, True)


def test_values_of_an_option_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    own = tmp_path / "sweep"
    own.mkdir()
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      loss: mse,msee\n      optim.lr: 1,fast\n"
    (own / "mine.yaml").write_text(text)
    monkeypatch.setattr("mlkd.config.paths.EXTRA_CONFIG_DIRS", [tmp_path])
    monkeypatch.setattr("mlkd.config.composition.EXTRA_CONFIG_DIRS", [tmp_path])
    with pytest.raises(MlkdError) as caught:
        plan_sweep(["+sweep=mine"])
    assert [problem.code for problem in caught.value.problems] == ["E202", "E203"]
