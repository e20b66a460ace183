"""Signals wait for the end of a step; the handlers of others come back."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch

import mlkd
from mlkd.runtime.checkpoints import load_latest
from mlkd.runtime.signals import Interrupts

CASES = [
    (signal.SIGTERM, {}, "SIGTERM", 143),
    (signal.SIGTERM, {"SLURM_JOB_ID": "7"}, "SIGTERM", 75),
    (signal.SIGUSR2, {}, "SIGUSR2", 75),
    (signal.SIGINT, {}, "SIGINT", 130),
    (signal.SIGINT, {"SLURM_JOB_ID": "7"}, "SIGINT", 130),
]


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the variables of a scheduler; what a failing test leaves behind is undone."""
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    previous = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    yield
    for signum, handler in previous.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(("signum", "environment", "name", "code"), CASES)
def test_signal_is_flagged_and_the_step_goes_on(
    signum: int, environment: dict[str, str], name: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    before = signal.getsignal(signum)
    with Interrupts() as interrupts:
        assert interrupts.requested is None
        assert interrupts.exit_code == 0
        signal.raise_signal(signum)
        assert interrupts.requested == name
        assert interrupts.exit_code == code
    assert signal.getsignal(signum) is before
    assert interrupts.requested == name


def test_second_ctrl_c_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested == "SIGINT"
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was ignored")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_first_signal_counts() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested == "SIGTERM"


def test_previous_handler_is_called_after_the_save() -> None:
    calls: list[int] = []

    def requeue(signum: int, frame: FrameType | None) -> None:
        calls.append(signum)

    signal.signal(signal.SIGUSR2, requeue)
    with Interrupts() as interrupts:
        interrupts.call_previous()
        signal.raise_signal(signal.SIGUSR2)
        assert calls == []
        interrupts.call_previous()
        assert calls == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is requeue


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_default_handlers_are_not_called(signum: int) -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signum)
        interrupts.call_previous()
        assert interrupts.signum == signum


def test_rank_takes_over_the_signal_of_another() -> None:
    with Interrupts() as interrupts:
        interrupts.signum = max(interrupts.signum, int(signal.SIGUSR2))
    assert (interrupts.requested, interrupts.exit_code) == ("SIGUSR2", 75)


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.requested is None
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_another_thread_sets_no_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.extend([signal.getsignal(signal.SIGTERM), interrupts.requested])
            interrupts.call_previous()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, None]


TOY_RUN = """
import os, signal, sys
from pathlib import Path
import torch
from mlkd.runtime.checkpoints import CheckpointWriter, load_latest
from mlkd.runtime.signals import Interrupts
from mlkd.runtime.run_folder import RunFolder, RunState, Status
from mlkd.runtime.log import RunLog

run, total_steps, stop_step, signum = RunFolder(Path(sys.argv[1])), 9, int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(1)
weight = torch.randn(4)
with run.lock(), Interrupts() as interrupts:
    writer = CheckpointWriter(run.checkpoints)
    checkpoint = load_latest(run.checkpoints)
    first = checkpoint.step if checkpoint else 0
    if checkpoint:
        weight = checkpoint.tensors["student"]["weight"]
        torch.set_rng_state(checkpoint.tensors["random"]["cpu"])
    with RunLog(run.path, total_steps, checkpoint and first) as run_log, run_log.progress() as progress:
        for step in range(first + 1, total_steps + 1):
            weight = weight + torch.randn(4)
            if step == stop_step:
                os.kill(os.getpid(), signum)
            loss = float(weight.sum())
            run_log.log_step(step, {"loss": loss})
            progress.update(step, {"loss": loss}, 0.1, 4, 16)
            if step % 4 == 0 or step == total_steps or interrupts.requested:
                writer.save(step, {"student": {"weight": weight}, "random": {"cpu": torch.get_rng_state()}}, {})
            if interrupts.requested:
                run.write_status(Status(state=RunState.interrupted, step=step, max_steps=total_steps))
                sys.exit(interrupts.exit_code)
    run.write_status(Status(state=RunState.finished, step=total_steps, max_steps=total_steps))
"""


def toy_run(folder: Path, stop_step: int = 0, signum: int = 0) -> int:
    environment = os.environ | {"PYTHONPATH": str(Path(mlkd.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TOY_RUN, str(folder), str(stop_step), str(int(signum))]
    return subprocess.run(command, check=False, env=environment, timeout=60).returncode


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, signum: int, code: int) -> None:
    assert toy_run(tmp_path / "whole") == 0
    assert toy_run(tmp_path / "lä b", 6, signum) == code
    saved = load_latest(tmp_path / "lä b" / "checkpoints")
    assert saved is not None
    assert saved.step == (4 if signum == signal.SIGKILL else 6)
    assert toy_run(tmp_path / "lä b") == 0

    whole, resumed = (load_latest(tmp_path / name / "checkpoints") for name in ("whole", "lä b"))
    assert whole is not None
    assert resumed is not None
    assert torch.equal(resumed.tensors["student"]["weight"], whole.tensors["student"]["weight"])
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "lä b")]
    assert metrics[0] == metrics[1]
    assert metrics[0].count(b"\n") == 9
