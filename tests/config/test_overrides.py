"""Overrides and files that do not compose: one message with every reason, its code and the nearest valid name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlkd.config import composition as config
from mlkd.config import overrides as diagnosis
from mlkd.config import paths
from mlkd.config.overrides import check_overrides, check_sweep
from mlkd.config.paths import CONFIG_DIR
from mlkd.errors import MlkdError


def message(kind: str, *overrides: str) -> str:
    with pytest.raises(MlkdError) as caught:
        check_overrides(kind, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optm.lr=1", "error[E201]: unknown key 'optm.lr'. Did you mean 'optim.lr'?"),
        ("lr=1", "error[E201]: unknown key 'lr'. Did you mean 'optim.lr'?"),
        ("data.language=[de]", "error[E201]: unknown key 'data.language'. Did you mean 'data.languages'?"),
        ("+optim.lrr=1", "error[E201]: optim.lrr: unknown key. Did you mean 'lr'?"),
        ("++sed=1", "error[E201]: sed: unknown key. Did you mean 'seed'?"),
        ("+task.nothing.path=x", "error[E201]: unknown key 'task.nothing.path'"),
        ("+experiment=xlmr_en_dr", "error[E202]: no experiment 'xlmr_en_dr'. Close: xlmr_en_de"),
        ("student=thin_dep", "error[E202]: no student 'thin_dep'. Close: thin_deep"),
        ("loss/ranking=amss", "error[E202]: no loss/ranking 'amss'. Close: ams."),
        ("task=[sts,tatoba]", "error[E202]: no task 'tatoba'. Close: tatoeba"),
        ("optim=null", "error[E202]: 'optim=null' names no option"),
        ("optim.lr=fast", "error[E203]: optim.lr: 'optim.lr=fast' does not fit: Value 'fast' of type 'str'"),
        ("dry_run=perhaps", "error[E203]: dry_run: 'dry_run=perhaps' does not fit: Value 'perhaps' is not"),
        ("student.pooling=men", "does not fit: Invalid value 'men', expected one of [mean, cls, max]"),
        ("seed=1,2", "error[E203]: seed: 'seed=1,2' does not fit: Ambiguous value"),
        ("a b", "error[E208]: cannot read the override 'a b'"),
    ],
)  # fmt: skip
def test_one_bad_override(override: str, expected: str) -> None:
    text = message("train", override)
    assert expected in text
    assert text.count("error[") == 1


def test_values_that_no_job_can_take_are_told_before_the_first() -> None:
    with pytest.raises(MlkdError) as caught:
        check_sweep("train", ["loss.beta=0.1,-1,-2", "optim.batch_size=0", "seed=1,-1"])
    assert {(p.code, p.where, p.what) for p in caught.value.problems} == {
        ("E204", "optim.batch_size", "must be >= 1 (got 0)"),
        ("E204", "loss.beta", "must be >= 0 (got -1.0)"),
        ("E204", "loss.beta", "must be >= 0 (got -2.0)"),
        ("E204", "seed", "must be in [0, 2^63) (got -1)"),
    }


def test_values_that_some_job_can_take_are_left_to_the_jobs() -> None:
    check_sweep("train", ["student=thin_deep", "student.hidden_size=384,320", "student.num_attention_heads=12,10"])
    check_sweep("train", ["loss=mse", "loss.beta=0,1", "loss.gamma=0,1"])
    with pytest.raises(MlkdError, match=r"student\.num_attention_heads: must divide hidden_size=384 \(got 10\)"):
        check_sweep("train", ["student=thin_deep", "student.hidden_size=384", "student.num_attention_heads=12,10"])


def test_several_bad_overrides_come_together() -> None:
    text = message("train", "task=[tatoeba,stss]", "optm.lr=1", "seed=x", "optim.batch_size=0", "a b", "+data.foo=1")
    for part in (
        "[E208]",
        "no task 'stss'",
        "'optm.lr'",
        "seed: 'seed=x'",
        "optim.batch_size: must be >= 1",
        "data.foo",
    ):
        assert part in text
    assert text.count("error[") == 6


def test_evaluation_is_diagnosed_by_its_own_schema() -> None:
    assert "unknown key 'optim.lr'" in message("evaluate", "checkpoint=x", "optim.lr=1")
    assert "unknown key 'checkpont'. Did you mean 'checkpoint'?" in message("evaluate", "checkpont=x")


def test_options_of_a_group_are_told() -> None:
    assert "hardware is one of: auto, cpu, cpu_bf16, gpu" in message("train", "hardware=tpu")


@pytest.fixture
def own_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configuration files, to which tests add their own."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIG_DIR, folder)
    monkeypatch.setattr(config, "CONFIG_DIR", folder)
    monkeypatch.setattr(diagnosis, "CONFIG_DIR", folder)
    monkeypatch.setattr(paths, "CONFIG_DIR", folder)
    return folder


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("optim:\n  lr: 1.0\n  lr: 2.0\n", "error[E211]: {file}:4: duplicate key 'lr'"),
        ("optim:\n\tlr: 1.0\n", "error[E212]: {file}:3: tab used for indentation"),
        ("optim: {\n", "error[E213]: {file}:3: not YAML: "),
        ("optm:\n  lr: 1.0\n", "error[E201]: {file}: optm: Key 'optm' not in 'TrainConfig'"),
        ("optim:\n  lr: fast\n", "error[E203]: {file}: optim.lr: Value 'fast' of type 'str' could not be converted"),
        ("defaults:\n  - override /data: tsvv\n", "error[E202]: In 'train': Could not find 'data/tsvv'"),
        (
            "defaults:\n  - override /data: tsv\ndata:\n  path: x\n  languages: [de, no]\n",
            "error[E206]: data.languages[1]: is the boolean False. YAML reads no/on/yes as booleans",
        ),
        ("task:\n  tatoeba:\n    languages: [no]\n", "error[E206]: task.tatoeba.languages[0]: is the boolean False"),
    ],
)
def test_bad_experiment_file(own_configs: Path, content: str, expected: str) -> None:
    file = own_configs / "experiment/mine.yaml"
    file.write_text("# @package _global_\n" + content, encoding="utf-8")
    assert expected.format(file=file) in message("train", "+experiment=mine")
