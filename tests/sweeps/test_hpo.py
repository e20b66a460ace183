"""A search by Optuna: it finds, it repeats itself, and it goes on where it was."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from mlkd.config.hpo_schema import HyperParameterSearch
from mlkd.errors import MlkdError
from mlkd.sweeps.hpo import TRIALS_FILE, Choice, Interval, import_optuna, read_trials, run_search

SPACE = {"lr": Interval(1e-5, 1e-1, log=True), "layers": Interval(1, 6), "loss": Choice(("mse", "ams"))}


def score(number: int, params: dict[str, str]) -> float | None:
    """Best, at 0, for lr 1e-3, four layers and ams."""
    distance = (math.log10(float(params["lr"])) + 3) ** 2 + (int(params["layers"]) - 4) ** 2 / 9
    return -distance - (params["loss"] == "mse")


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MlkdError, match=r'(?s)E502.*pip install "mlkd\[optuna\]"'):
        import_optuna()


def test_ranges() -> None:
    with pytest.raises(MlkdError) as caught:
        HyperParameterSearch(trials=0, startup_trials=0, seed=-1)
    assert [(p.code, p.where) for p in caught.value.problems] == [
        ("E204", n) for n in ("trials", "startup_trials", "seed")
    ]


def test_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / TRIALS_FILE
    for text in ("[{", '[{"value": 1}]'):
        path.write_text(text)
        with pytest.raises(MlkdError, match="E309"):
            read_trials(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trials of an uninterrupted search."""
    pytest.importorskip("optuna", reason="extra optuna is not installed")
    folder = tmp_path_factory.mktemp("search")
    run_search(SPACE, HyperParameterSearch(trials=30), folder, score)
    return folder / TRIALS_FILE


def test_scores_guide_the_search(found: Path) -> None:
    trials = read_trials(found)
    assert len(trials) == 30
    for trial in trials:
        assert 1e-5 <= float(trial.params["lr"]) <= 1e-1
        assert 1 <= int(trial.params["layers"]) <= 6
        assert trial.params["loss"] in ("mse", "ams")
    values = [trial.value for trial in trials if trial.value is not None]
    random, guided = values[:8], values[-10:]
    assert sum(guided) / 10 > sum(random) / 8
    assert sum(trial.params["loss"] == "ams" for trial in trials[-10:]) > 5


def test_interrupted_search_goes_on_as_if_it_had_not_been(found: Path, tmp_path: Path) -> None:
    def interrupted(number: int, params: dict[str, str]) -> float | None:
        if number == 12:
            raise KeyboardInterrupt
        return score(number, params)

    with pytest.raises(KeyboardInterrupt):
        run_search(SPACE, HyperParameterSearch(trials=30), tmp_path, interrupted)
    assert len(json.loads((tmp_path / TRIALS_FILE).read_text())) == 13
    run_search(SPACE, HyperParameterSearch(trials=20), tmp_path, score)
    run_search(SPACE, HyperParameterSearch(trials=30), tmp_path, score)
    assert (tmp_path / TRIALS_FILE).read_bytes() == found.read_bytes()


def test_trials_that_failed_keep_their_values(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="extra optuna is not installed")
    run_search(
        SPACE,
        HyperParameterSearch(trials=4),
        tmp_path,
        lambda number, params: None if number == 2 else score(number, params),
    )
    before = read_trials(tmp_path / TRIALS_FILE)
    assert [trial.value is None for trial in before] == [False, False, True, False]
    asked = []

    def again(number: int, params: dict[str, str]) -> float | None:
        asked.append(number)
        return score(number, params)

    run_search(SPACE, HyperParameterSearch(trials=4), tmp_path, again)
    after = read_trials(tmp_path / TRIALS_FILE)
    assert asked == [2]
    assert [trial.params for trial in after] == [trial.params for trial in before]
    assert after[2].value == score(2, after[2].params)


def test_seeds_differ(found: Path, tmp_path: Path) -> None:
    run_search(SPACE, HyperParameterSearch(trials=2, seed=2), tmp_path, score)
    assert read_trials(tmp_path / TRIALS_FILE)[0].params != read_trials(found)[0].params
