"""A killed and resumed run writes the metrics of an uninterrupted one; a log that fails stops nothing."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mlkd.runtime.log import LineFile, RunLog
from mlkd.runtime.progress import Progress, memory_bytes


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def write_steps(run_log: RunLog, first: int, last: int) -> None:
    for step in range(first, last + 1):
        run_log.log_step(step, {"loss": 1 / step, "lr": 0.1, "num_pairs": 3 * step})
        run_log.log_timing(step, {"sentences_per_second": 10.0})
        if step % 2 == 0:
            run_log.log_step(step, {"talks/de/accuracy": step / 7}, kind="eval")


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines(tmp_path: Path) -> None:
    with RunLog(tmp_path, 10) as run_log:
        run_log.log_step(1, {"loss": 0.1 + 0.2, "num_pairs": 3})
        run_log.log_step(1, {"talks/de/ß": float("nan"), "worst": -float("inf")}, kind="eval")
        # On disk before the run ends: a killed process loses no line.
        assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == (
            '{"step": 1, "kind": "train", "loss": 0.30000000000000004, "num_pairs": 3}\n'
            '{"step": 1, "kind": "eval", "talks/de/ß": null, "worst": null}\n'
        )
        run_log.log_timing(1, {"tokens_per_second": 2.0})
    assert records(tmp_path / "timing.jsonl") == [{"step": 1, "tokens_per_second": 2.0}]


@pytest.mark.parametrize("tail", ["", '{"step": 6, "ki', "\n\n", '{"step": 4, "kind": "tr', "\x00\x00"])
def test_resumed_metrics_equal_uninterrupted_ones(tmp_path: Path, tail: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "lä b").mkdir()
    with RunLog(tmp_path / "whole", 8) as run_log:
        write_steps(run_log, 1, 8)
    with RunLog(tmp_path / "lä b", 8) as run_log:
        write_steps(run_log, 1, 5)
    with (tmp_path / "lä b" / "metrics.jsonl").open("a") as file:
        file.write(tail)
    with RunLog(tmp_path / "lä b", 8, resume_step=4) as run_log:
        write_steps(run_log, 5, 8)
    whole, resumed = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "lä b"))
    assert resumed == whole
    assert [record["step"] for record in records(tmp_path / "lä b" / "timing.jsonl")] == list(range(1, 9))


def test_complete_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    with RunLog(tmp_path, 8, resume_step=2) as run_log:
        run_log.log_step(3, {})
    assert [record["step"] for record in records(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_start_from_nothing_empties_the_files(tmp_path: Path) -> None:
    with RunLog(tmp_path, 8) as run_log:
        run_log.log_step(0, {"talks/de/accuracy": 0.0}, kind="eval")
        write_steps(run_log, 1, 3)
    with RunLog(tmp_path, 8) as run_log:
        run_log.log_step(0, {"talks/de/accuracy": 0.5}, kind="eval")
    assert records(tmp_path / "metrics.jsonl") == [{"step": 0, "kind": "eval", "talks/de/accuracy": 0.5}]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full on this system")
def test_full_disk_warns_once_per_file_and_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("metrics.jsonl", "timing.jsonl", "train.log"):
        (tmp_path / name).symlink_to("/dev/full")
    with RunLog(tmp_path, 8) as run_log:
        write_steps(run_log, 1, 4)
        logging.getLogger("mlkd.losses").info("still alive")
    assert Path("/dev/full").is_char_device()
    errors = capsys.readouterr().err
    for name in ("metrics.jsonl", "timing.jsonl", "train.log"):
        assert errors.count(f"{name}' cannot be written") == 1, errors
    assert "still alive" in errors
    assert "warning: 6 lines of" in errors
    assert "Traceback" not in errors


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = LineFile(tmp_path / "metrics.jsonl")
    lines.append({"step": 1})
    opened = Path.open

    class ShortWrites(io.FileIO):
        def write(self, content: bytes) -> int:  # type: ignore[override]
            return super().write(content[:4])

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: ShortWrites(path, "a"))
    lines.append({"step": 2})
    monkeypatch.setattr(Path, "open", opened)
    lines.append({"step": 3})
    assert lines.path.read_text() == '{"step": 1}\n{"step": 3}\n'
    assert lines.num_lost == 1


def test_missing_folder_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path / "gone", 8) as run_log:
        run_log.log_step(1, {"loss": 1.0})
    assert "train.log is not written" in capsys.readouterr().err


def test_several_runs_in_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    package_log = logging.getLogger("mlkd")
    before = (list(package_log.handlers), package_log.level, package_log.propagate)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with RunLog(tmp_path / name, 8):
            logging.getLogger("mlkd.training.trainer").info("run %s", name)
            logging.getLogger("mlkd.training.trainer").warning("careful %s", name)
            logging.getLogger("mlkd.training.trainer").debug("not shown")
    assert (list(package_log.handlers), package_log.level, package_log.propagate) == before
    assert capsys.readouterr().err == "run a\nwarning: careful a\nrun b\nwarning: careful b\n"
    assert not caplog.records  # handlers of the root logger, such as Hydra's, would repeat every line
    text = (tmp_path / "b" / "train.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO run b\n\S+Z WARNING careful b\n", text)
    with RunLog(tmp_path / "b", 8, resume_step=1):
        logging.getLogger("mlkd").info("again")
    assert (tmp_path / "b" / "train.log").read_text().startswith(text)


def run_steps(
    progress: Progress, clock: Clock, steps: range, seconds: float, losses: Callable[[int], dict[str, float]]
) -> None:
    for step in steps:
        clock.now += seconds
        progress.update(step, losses(step), 2e-5, 64, 1000)


def one_loss(step: int) -> dict[str, float]:
    return {"loss": 1 / step, "feature": 0.25}


def test_lines_without_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlkd")
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=False)
    with Progress(1000, clock=clock, console=console) as progress:
        run_steps(progress, clock, range(1, 1001), 0.25, one_loss)
    messages = [record.getMessage() for record in caplog.records]
    # The first step, then each 30 s = 120 steps, and the last step.
    steps = [int(re.match(r"step ([\d,]+)/1,000 ", message)[1].replace(",", "")) for message in messages]  # type: ignore[index]
    assert steps == [1, 121, 241, 361, 481, 601, 721, 841, 961, 1000]
    assert re.fullmatch(
        r"step 601/1,000 \(60\.1%\) \| loss 0\.001664, feature 0\.25 \| lr 2e-05 \| 256 sentences/s \| "
        r"4,000 tokens/s \| \d+\.\d\d GiB \| 0:01:40 left",
        messages[5],
    ), messages[5]
    assert messages[-1].endswith("0:00:00 left")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_long_runs_get_a_line_per_percent_but_one_in_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlkd")
    clock = Clock()
    for total_steps, seconds in ((10_000, 1.0), (1_000_000, 1.0)):
        caplog.clear()
        with Progress(total_steps, clock=clock, console=Console(file=io.StringIO())) as progress:
            run_steps(progress, clock, range(1, 1302), seconds, one_loss)
        interval = min(total_steps // 100, 600)
        assert len(caplog.records) == 1 + 1300 // interval + (1300 % interval > 0)


def test_rates_are_of_the_last_half_minute_and_without_pauses() -> None:
    clock = Clock()
    with Progress(10_000, 500, clock=clock, console=Console(file=io.StringIO())) as progress:
        assert progress.rates.steps == 0
        run_steps(progress, clock, range(501, 541), 1.0, one_loss)
        assert (progress.rates.steps, progress.rates.sentences, progress.rates.tokens) == (1.0, 64.0, 1000.0)
        with progress.paused():
            clock.now += 500
        run_steps(progress, clock, range(541, 542), 1.0, one_loss)
        assert progress.rates.steps == 1.0
        run_steps(progress, clock, range(542, 1000), 0.5, one_loss)
        assert progress.rates.steps == pytest.approx(2.0, rel=0.02)


def test_losses_are_read_only_when_shown() -> None:
    reads: list[int] = []

    class OnDevice:
        def __float__(self) -> float:
            reads.append(1)
            return 0.5

    clock = Clock()
    with Progress(100, clock=clock, console=Console(file=io.StringIO())) as progress:
        for step in range(1, 101):
            clock.now += 0.1
            progress.update(step, {"loss": OnDevice()}, 0.1, 1, 1)
    assert len(reads) == 2
    with Progress(1, clock=clock, console=Console(file=io.StringIO())) as progress:
        progress.update(1, {"loss": torch.tensor(0.5)}, 0.1, 1, 1)


def test_bar_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    clock = Clock()
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    stderr = sys.stderr
    with RunLog(tmp_path, 100), Progress(100, clock=clock, console=console) as progress:
        run_steps(progress, clock, range(1, 51), 0.1, one_loss)
        logging.getLogger("mlkd.tasks").info("score [bold] 0.5")
        run_steps(progress, clock, range(51, 101), 0.1, one_loss)
    assert sys.stderr is stderr
    shown = screen.getvalue()
    assert "━" in shown
    assert shown.count("step ") < 30  # the bar is drawn twice a second, not at each step
    assert "step 100/100 (100.0%) | loss 0.01, feature 0.25 | lr 2e-05 | 640 sentences/s" in shown
    assert "score [bold] 0.5" in shown  # above the bar, not through it
    assert capsys.readouterr().err == ""
    log_file = (tmp_path / "train.log").read_text()
    assert log_file.count("score [bold] 0.5") == 1
    assert log_file.count("INFO step ") == 2


def test_error_in_the_loop_is_not_hidden_by_the_last_line() -> None:
    class Dead:
        def __float__(self) -> float:
            raise RuntimeError("device lost")

    progress = Progress(10, clock=Clock(), console=Console(file=io.StringIO()))
    with pytest.raises(KeyError), progress:
        progress.update(1, {"loss": 1.0}, 0.1, 1, 1)
        progress.update(2, {"loss": Dead()}, 0.1, 1, 1)
        raise KeyError


def test_memory_is_that_of_this_process() -> None:
    before = memory_bytes()
    block = torch.ones(16 * 2**20)  # 64 MiB
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        assert memory_bytes() - before > 32 * 2**20
    assert 16 * 2**20 < before < 2**40
    del block
