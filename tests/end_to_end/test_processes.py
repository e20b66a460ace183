"""Runs of several processes: the result of one, one folder and one log, and one error whatever happens to which."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mlkd.distributed.launcher as launcher_module
import mlkd.distributed.process_group as distributed_module
from mlkd.distributed.process_group import ProcessGroup
from mlkd.training.run import train
from mlkd.training.trainer import Trainer
from mlkd.training.workers import WorkerGroup

Call = Callable[..., tuple[int, str, str]]
TWO = "hardware.num_processes=2"
# A larger eps keeps AdamW from making steps of the rounding in gradients that are zero.
NEGATIVES = ["loss=mse_info_nce", "loss.ranking.hard_negatives=2", "loss.ranking.teacher_negatives=20",
             "negatives.max_similarity=0.99", "optim.batch_size=15", "optim.eps=1e-3", "optim.max_steps=8",
             "evaluation.every_steps=4", "checkpoint.every_steps=4"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes forked from one that has everything imported, with impatient exchanges."""
    import multiprocessing

    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["mlkd.training.run", "mlkd.cli.main", "hydra", "transformers.models.bert.modeling_bert"]
    )
    monkeypatch.setattr(launcher_module, "START_METHOD", "forkserver")
    monkeypatch.setattr(launcher_module, "REASON_S", 2.0)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def files(folder: Path) -> dict[str, bytes]:
    """What runs of as many processes must end with bit by bit."""
    checkpoint = max((folder / "checkpoints").glob("step-*"))
    found = [folder / "metrics.jsonl", folder / "student/model.safetensors", *checkpoint.glob("*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[Trainer], None]) -> None:
    """Do something in the middle of the given step (counted from 1) of the first process, once."""
    forward = Trainer.forward

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.state.step == step - 1:
            monkeypatch.setattr(Trainer, "forward", forward)
            act(self)
        return forward(self, batch)

    monkeypatch.setattr(Trainer, "forward", interrupted)


def only_run(parent: Path) -> Path:
    (run,) = parent.iterdir()
    return run


@pytest.fixture
def launchers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The launchers that runs of this test start."""
    found: list[Any] = []
    enter = WorkerGroup.__enter__

    def remember(self: WorkerGroup) -> WorkerGroup:
        found.append(self.launcher)
        return enter(self)

    monkeypatch.setattr(WorkerGroup, "__enter__", remember)
    return found


def test_two_processes_give_the_run_of_one(toy: Any, tmp_path: Path) -> None:
    one = train(toy.config(tmp_path, *NEGATIVES), tmp_path / "one")
    two = train(toy.config(tmp_path, *NEGATIVES, TWO), tmp_path / "two")
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert len(set(losses(one))) == 8
    expected = load_file(one / "student/model.safetensors")
    for name, weight in load_file(two / "student/model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_it_goes_on_exactly_and_with_any_number(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [*NEGATIVES, "student.dropout=0.2", "hardware.gradient_caching=true", "hardware.max_tokens=60"]
    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "abort", lambda self: pytest.fail("nobody was lost"))
        whole = train(toy.config(tmp_path, *more, TWO), tmp_path / "whole")
    at_step(monkeypatch, 3, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    code, _, err = mlkd("train", *toy.command(tmp_path, *more, TWO))
    assert code == 143, err
    run = only_run(tmp_path / "toy")
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 3)
    assert (run / "checkpoints/step-00000003").is_dir()
    code, _, err = mlkd("train", *toy.command(tmp_path, *more, TWO))
    assert code == 0, err
    assert f"continuing {run}" in err
    assert files(run) == files(whole)
    # Two streams of random numbers, not the same one twice.
    random = load_file(run / "checkpoints/step-00000008/random.safetensors")
    assert sorted(random) == ["cpu", "cpu-1"]
    assert not torch.equal(random["cpu"], random["cpu-1"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_continues(
    *, mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    at_step(monkeypatch, 5, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    command = toy.unscored.command(tmp_path, *NEGATIVES)
    assert mlkd("train", *command, f"hardware.num_processes={before}")[0] == 143
    code, _, err = mlkd("train", *command, f"hardware.num_processes={after}")
    assert code == 0, err
    assert err.count(f"saved by {before} process(es), continued by {after}: dropout draws other numbers") == 1
    found = losses(only_run(tmp_path / "toy"))
    expected = losses(train(toy.unscored.config(tmp_path, *NEGATIVES), tmp_path / "one"))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        (
            lambda launcher, run: launcher.send("nonsense"),
            1,
            "error[E102]: process 2 of 2 failed: AssertionError: unknown message",
        ),
        (
            lambda launcher, run: launcher.workers[0].process.kill(),
            5,
            "error[E515]: process 2 of 2 was killed (SIGKILL)",
        ),
        (
            lambda launcher, run: os.kill(launcher.workers[0].process.pid, signal.SIGSTOP),
            5,
            "error[E516]: the 2 processes of this run waited 2 s for one another",
        ),
        (
            lambda launcher, run: run.student.backbone.embeddings.LayerNorm.bias.add_(1e-3),
            6,
            "error[E602]: process 2 of 2 has other weights than the first one after step 8",
        ),
    ],
    ids=["raises", "killed", "hangs", "drifts"],
)
def test_one_process_that_fails_ends_all(
    *, mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: list[Any],
    act: Callable[[Any, Trainer], None], code: int, message: str,
) -> None:  # fmt: skip
    for module in (launcher_module, distributed_module):
        monkeypatch.setattr(module, "TIMEOUT_S", 2.0)
    failed_at = []

    def fail(run: Any) -> None:
        failed_at.append((time.monotonic(), launchers[0].workers[0].process.pid))
        with torch.no_grad():
            act(launchers[0], run)

    at_step(monkeypatch, 6, fail)
    found, _, err = mlkd("train", *toy.unscored.command(tmp_path, *NEGATIVES, TWO))
    (start, pid), end = failed_at[0], time.monotonic()
    assert found == code, err
    assert err.count("error[") == 1
    assert message in err
    assert "Traceback" not in err
    assert end - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    run = only_run(tmp_path / "toy")
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert message in status["error"]
    assert ("Traceback" in (run / "train.log").read_text()) == (code == 1)
    assert mlkd("train", *toy.unscored.command(tmp_path, *NEGATIVES))[0] == 0  # from the checkpoint of step 4


def test_what_a_process_cannot_do_keeps_its_exit_code(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = WorkerGroup.__enter__

    def spoil(self: WorkerGroup) -> WorkerGroup:
        self.start.config.data.path = str(tmp_path / "nothing-{language}.tsv")  # type: ignore[attr-defined]
        return enter(self)

    monkeypatch.setattr(WorkerGroup, "__enter__", spoil)
    code, _, err = mlkd("train", *toy.unscored.command(tmp_path, TWO))
    assert code == 3
    assert err.count("error[E301]") == 2  # a file for each language
    assert "Traceback" not in err


def test_files_that_change_while_a_run_starts(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = WorkerGroup.__enter__

    def spoil(self: WorkerGroup) -> WorkerGroup:
        self.start.config.data.languages.pop()
        return enter(self)

    monkeypatch.setattr(WorkerGroup, "__enter__", spoil)
    code, _, err = mlkd("train", *toy.unscored.command(tmp_path, TWO))
    assert code == 5
    assert "error[E517]: process 2 of 2 read other text or built another student than the first" in err


def test_another_run_may_add_to_the_shared_cache_meanwhile(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = WorkerGroup.__enter__

    def add(self: WorkerGroup) -> WorkerGroup:
        store = self.trainer.data.targets.store
        store.append([f"sentence {n} of another run" for n in range(50)], torch.ones(50, store.dimension))
        return enter(self)

    monkeypatch.setattr(WorkerGroup, "__enter__", add)
    more = ["optim.max_steps=3", f"cache_dir='{tmp_path}/cache'"]
    alone = train(toy.unscored.config(tmp_path, *more), tmp_path / "alone")
    folder = train(toy.unscored.config(tmp_path, TWO, *more), tmp_path / "two")
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-4)


# With one line the other process is just starting.
@pytest.mark.parametrize("num_lines", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_ctrl_c_reaches_all_and_the_first_decides(toy: Any, tmp_path: Path, num_lines: int) -> None:
    command = toy.unscored.command(tmp_path, TWO, "optim.max_steps=100000", "checkpoint.every_steps=100000")
    code = "from mlkd.cli.main import train_main; train_main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not any(path.read_bytes().count(b"\n") >= num_lines for path in tmp_path.glob("toy/*/metrics.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "error" not in err
    run = only_run(tmp_path / "toy")
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "interrupted"
    saved = [path.name for path in (run / "checkpoints").glob("step-*")]
    assert saved == ([f"step-{status['step']:08d}"] if num_lines > 1 else [])


def test_values_that_cannot_be(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = mlkd("train", *toy.command(tmp_path, "hardware.num_processes=0"))
    assert code == 2
    assert "error[E204]: hardware.num_processes: must be >= 1 (got 0)" in err
    code, _, err = mlkd("train", *toy.command(tmp_path, "hardware.num_processes=17"))
    assert code == 2
    assert "error[E204]: hardware.num_processes: must be at most optim.batch_size=16 (got 17)" in err
    few = ["hardware.num_processes=5", "data.max_pairs_per_language=2"]
    code, _, err = mlkd("train", *toy.unscored.command(tmp_path, *few))
    assert code == 2
    assert "error[E204]: hardware.num_processes: must be at most 4, the pairs of a batch of this text (got 5)" in err
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    code, _, err = mlkd("train", *toy.command(tmp_path))
    assert code == 5
    assert "error[E518]: a launcher such as torchrun started this command several times (WORLD_SIZE=4)" in err
    assert "fix: start it once, without the launcher, with hardware.num_processes=4" in err
    assert len(list(tmp_path.glob("toy/*"))) == 1  # that of the run which had read its text


def test_dry_run(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    code, out, err = mlkd("train", *toy.command(tmp_path, TWO, "dry_run=true"))
    assert code == 0, err
    assert "device        cpu, torch.float32, in each of 2 processes" in out
    assert logging.getLogger("mlkd").handlers == []
