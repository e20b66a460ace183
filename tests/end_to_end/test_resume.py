"""A run that is killed, interrupted or started twice: it goes on exactly where it was, or says why it cannot."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlkd.runtime.run_folder import RunFolder
from mlkd.training.run import train
from mlkd.training.trainer import Trainer

Call = Callable[..., tuple[int, str, str]]


def reproducible(folder: Path) -> dict[str, bytes]:
    """What an interrupted run must end with bit by bit."""
    checkpoint = max((folder / "checkpoints").glob("step-*"))
    files = [folder / "metrics.jsonl", folder / "student/model.safetensors", *checkpoint.glob("*.safetensors")]
    files.append(checkpoint / "state.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send this process a signal in the middle of the given step (counted from 1), once."""
    forward = Trainer.forward

    def interrupted(self: Trainer, rows: Any) -> Any:
        if self.state.step == step - 1:
            monkeypatch.setattr(Trainer, "forward", forward)
            os.kill(os.getpid(), number)
        return forward(self, rows)

    monkeypatch.setattr(Trainer, "forward", interrupted)


def only_run(parent: Path) -> Path:
    (run,) = parent.iterdir()
    return run


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["student.dropout=0.2", "loss=lealla", "student.hidden_size=24"],
        ["student.dropout=0.2", "loss=mse_info_nce", "loss.ranking.hard_negatives=2",
         "loss.ranking.teacher_negatives=20", "negatives.max_similarity=0.99", "hardware.gradient_caching=true",
         "hardware.max_tokens=60"],
    ],
    ids=["plain", "dropout", "negatives and caching"],
)  # fmt: skip
def test_killed_runs_end_as_an_uninterrupted_one(
    toy: Any, tmp_path: Path, start_training: Any, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    more = [*more, "optim.max_steps=40", "checkpoint.every_steps=3", "evaluation.every_steps=10"]
    expected = train(toy.config(tmp_path, *more), tmp_path / "expected")
    arguments = toy.command(tmp_path / "killed", *more)
    generator = random.Random(0)
    lines_per_kill = [generator.randint(1, 12) for _ in range(3)]
    num_kills = 0
    for _ in range(len(lines_per_kill) + 2):
        process = start_training(arguments, monkeypatch)
        if num_kills < len(lines_per_kill):
            wait_for_lines(process, tmp_path / "killed/toy", lines_per_kill[num_kills])
            time.sleep(generator.uniform(0, 0.02))
            process.kill()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        num_kills += 1
    assert num_kills >= 2
    run = only_run(tmp_path / "killed/toy")
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert reproducible(run) == reproducible(expected)
    assert not list(run.rglob("*.tmp"))


def wait_for_lines(process: Any, parent: Path, more: int) -> None:
    """Return when the run under `parent` has logged `more` lines than it had, or has ended."""
    before = sum(map(num_lines, parent.glob("*/metrics.jsonl")))
    changed = False
    while process.is_alive():
        now = sum(map(num_lines, parent.glob("*/metrics.jsonl")))
        changed = changed or now < before
        # Continuing cuts the lines after the checkpoint off first.
        if now >= before + more or (changed and now >= before):
            return
        time.sleep(0.002)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_saves_and_the_same_command_continues(
    *, mlkd: Call, toy: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    signal_at(monkeypatch, 7, getattr(signal, name))
    found, _, err = mlkd("train", *toy.command(tmp_path))
    assert found == code, err
    run = only_run(tmp_path / "toy")
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 7)
    assert name in status["error"]
    assert (run / "checkpoints/step-00000007").is_dir()
    found, _, err = mlkd("train", *toy.command(tmp_path))
    assert found == 0, err
    assert f"continuing {run} (resume=false starts anew)" in err
    assert "continuing after step 7" in err
    assert only_run(tmp_path / "toy") == run
    assert reproducible(run) == reproducible(trained)


def test_gradients_may_be_cached_from_the_middle_of_a_run_on(
    mlkd: Call, toy: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, 7, signal.SIGTERM)
    assert mlkd("train", *toy.command(tmp_path))[0] == 143
    code, _, err = mlkd("train", *toy.command(tmp_path, "hardware.gradient_caching=true"))
    assert code == 0, err
    assert "continuing after step 7" in err
    assert reproducible(only_run(tmp_path / "toy")) == reproducible(trained)


def test_signal_before_the_first_step(
    mlkd: Call, toy: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlkd.training.setup as setup_module

    build = setup_module.place_student

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(setup_module, "place_student", build)
        os.kill(os.getpid(), signal.SIGTERM)
        return build(*args, **kwargs)

    monkeypatch.setattr(setup_module, "place_student", interrupted)
    assert mlkd("train", *toy.command(tmp_path))[0] == 143
    assert mlkd("train", *toy.command(tmp_path))[0] == 0
    assert reproducible(only_run(tmp_path / "toy")) == reproducible(trained)


def test_crash_after_training_does_not_train_again(
    mlkd: Call, toy: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlkd.training.run as train_module

    def crash(*args: Any) -> None:
        raise RuntimeError("no report today")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "finalize", crash)
        with pytest.raises(RuntimeError, match="no report today"):
            mlkd("train", *toy.command(tmp_path))
    run = only_run(tmp_path / "toy")
    assert json.loads((run / "status.json").read_text())["error"] == "RuntimeError: no report today"
    before = (run / "metrics.jsonl").read_bytes()
    assert mlkd("train", *toy.command(tmp_path))[0] == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    assert (run / "report.html").is_file()
    assert reproducible(run) == reproducible(trained)


def signal_after(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Send this process a signal at the end of a function of the conclusion, once."""
    import mlkd.training.finalize as finalize_module

    function = getattr(finalize_module, name)

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(finalize_module, name, function)
        result = function(*args)
        os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(finalize_module, name, interrupted)


def test_signal_during_the_conclusion_ends_it_and_it_is_done_again(
    mlkd: Call, toy: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_after(monkeypatch, "load_best", signal.SIGTERM)
    code, _, err = mlkd("train", *toy.command(tmp_path))
    assert code == 143, err
    run = only_run(tmp_path / "toy")
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert (run / "eval/teacher.json").is_file()
    assert not (run / "eval/student.json").exists()
    before = (run / "metrics.jsonl").read_bytes()
    assert mlkd("train", *toy.command(tmp_path))[0] == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    assert (run / "report.html").is_file()
    assert reproducible(run) == reproducible(trained)


def test_signal_during_the_report_leaves_a_finished_run(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_after(monkeypatch, "compare_systems", signal.SIGTERM)
    code, _, err = mlkd("train", *toy.command(tmp_path, "optim.max_steps=2"))
    assert code == 0, err
    run = only_run(tmp_path / "toy")
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert (run / "report.html").is_file()


def test_finished_run_is_left_alone(mlkd: Call, toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = toy.unscored.command(tmp_path, "optim.max_steps=2")
    assert mlkd("train", *arguments)[0] == 0
    first = only_run(tmp_path / "toy")
    before = reproducible(first)
    assert mlkd("train", *arguments)[0] == 0
    assert len(list((tmp_path / "toy").iterdir())) == 2
    assert mlkd("train", *arguments, f"hydra.run.dir={first}")[0] == 0
    assert f"{first} is finished already" in caplog.text
    assert reproducible(first) == before


def test_resume_false_starts_anew(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = toy.unscored.command(tmp_path, "optim.max_steps=4")
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert mlkd("train", *arguments)[0] == 143
    first = only_run(tmp_path / "toy")
    assert mlkd("train", *arguments, "resume=false")[0] == 0
    states = {p.parent: json.loads(p.read_text())["state"] for p in (tmp_path / "toy").glob("*/status.json")}
    assert states.pop(first) == "interrupted"
    assert list(states.values()) == ["finished"]


def test_other_values_do_not_continue(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = toy.unscored.command(tmp_path, "optim.max_steps=4")
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert mlkd("train", *arguments)[0] == 143
    first = only_run(tmp_path / "toy")
    assert mlkd("train", *arguments, "seed=2")[0] == 0
    assert len(list((tmp_path / "toy").iterdir())) == 2
    code, _, err = mlkd("train", *arguments, "seed=3", "optim.lr=0.5", f"hydra.run.dir={first}")
    assert code == 4
    assert f"error[E412]: {first}: was started with another configuration" in err
    assert "optim.lr: 0.01 there, 0.5 now" in err
    assert "seed: 1 there, 3 now" in err
    assert json.loads((first / "status.json").read_text())["state"] == "interrupted"


def test_changed_text_is_refused(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(toy.root / "train", tmp_path / "data/train")
    mine = replace(toy.unscored, root=tmp_path / "data")
    arguments = mine.command(tmp_path / "out", "optim.max_steps=4")
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert mlkd("train", *arguments)[0] == 143
    file = tmp_path / "data/train/en-de.tsv"
    before = file.read_text()
    file.write_text(before + "a new cat\teine neue katze\n")
    code, _, err = mlkd("train", *arguments)
    assert code == 3
    assert "error[E319]" in err
    assert "(de)" in err
    file.write_text(before)
    assert mlkd("train", *arguments)[0] == 0


def test_one_process_a_folder(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = toy.unscored.command(tmp_path, "optim.max_steps=2", f"hydra.run.dir={folder}")
    with RunFolder(folder).lock():
        code, _, err = mlkd("train", *arguments)
    assert code == 5
    assert "error[E511]" in err
    assert f"process {os.getpid()}" in err
    assert not (folder / "config.yaml").exists()
    assert mlkd("train", *arguments)[0] == 0
