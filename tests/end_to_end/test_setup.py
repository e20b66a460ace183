"""Training setup: the cache is filled once, a filled one needs no teacher, and changed text is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlkd.config.train_schema import Checkpointing, Evaluation
from mlkd.data.batches import Batches
from mlkd.errors import MlkdError
from mlkd.runtime.run_folder import RunFolder
from mlkd.training import setup as training_setup
from mlkd.training.preflight import run_preflight
from mlkd.training.setup import check_batch_size, choose_intervals, record_data, set_up


def test_a_filled_cache_needs_no_teacher(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy.config(tmp_path, f"cache_dir='{tmp_path / 'cache'}'")
    preflight = run_preflight(config)
    first = set_up(config, preflight)

    def refuse(*arguments: object) -> None:
        raise AssertionError("the teacher was opened")

    monkeypatch.setattr(training_setup, "open_teacher", refuse)
    second = set_up(config, preflight, cache_is_filled=True)
    assert second.trainer.data.positions.tolist() == first.trainer.data.positions.tolist()
    texts = torch.arange(5).numpy()
    cpu = torch.device("cpu")
    assert torch.equal(second.trainer.data.teacher(texts, cpu), first.trainer.data.teacher(texts, cpu))
    # Without the flag a sample of the cache is compared with the teacher.
    with pytest.raises(AssertionError, match="the teacher was opened"):
        set_up(config, preflight)


def test_the_untrained_student_trains_in_the_runs_precision(toy: Any, tmp_path: Path) -> None:
    config = toy.config(tmp_path, "hardware.precision=bf16", "hardware.max_tokens=77")
    setup = set_up(config, run_preflight(config))
    trainer = setup.trainer
    assert (trainer.precision, trainer.max_tokens, trainer.student.encode_tokens) == (torch.bfloat16, 77, 77)
    assert trainer.student.training
    assert trainer.state.step == 0
    assert sum(len(pair) for pair in setup.corpus.dev) > 0


def test_stop_is_asked_between_pieces_of_work(toy: Any, tmp_path: Path) -> None:
    config = toy.config(tmp_path, f"cache_dir='{tmp_path / 'cache'}'")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        set_up(config, run_preflight(config), stop=stop)
    assert list((tmp_path / "cache/teacher").rglob("*.npy"))  # what was encoded before is kept


def report_of(fingerprint: str) -> Any:
    content = {"languages": {"de": {"fingerprint": fingerprint}}}
    return SimpleNamespace(languages={"de": SimpleNamespace(fingerprint=fingerprint)}, as_json=lambda: content)


def test_text_that_changed_since_the_run_was_started(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record_data(run, report_of("a"))
    record_data(run, report_of("a"))
    assert json.loads((tmp_path / "data.json").read_text())["languages"]["de"]["fingerprint"] == "a"
    # Nothing was trained yet.
    record_data(run, report_of("b"))
    record_data(run, report_of("a"))
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(MlkdError, match=r"E319.*\(de\)"):
        record_data(run, report_of("b"))


def test_intervals() -> None:
    found = choose_intervals(100, Evaluation(patience=2), Checkpointing(), log_every=7)
    assert (found.evaluate_every, found.checkpoint_every, found.total_steps, found.patience) == (17, 17, 100, 2)
    assert found.log_every == 7
    found = choose_intervals(100, Evaluation(every_steps=5), Checkpointing(every_steps=3), log_every=7)
    assert (found.evaluate_every, found.checkpoint_every) == (5, 3)


def test_more_processes_than_pairs_in_a_batch() -> None:
    check_batch_size(Batches([20], 10, seed=1), 10)
    with pytest.raises(MlkdError, match=r"hardware.num_processes: must be at most 10.*\(got 11\)"):
        check_batch_size(Batches([20], 10, seed=1), 11)
