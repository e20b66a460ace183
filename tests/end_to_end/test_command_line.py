"""The commands as a user types them: exit codes, help, folders of runs and sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import cuda

from mlkd import __version__
from mlkd.cli.help import GROUPS, first_comment, help_text
from mlkd.cli.main import run
from mlkd.cli.topics import documented_keys
from mlkd.config.paths import CONFIG_DIR
from mlkd.config.quoting import quote_if_needed, rewrite_experiment

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a.b=1e-3", "a.b=1e-3"),
        ("task=[sts,bucc]", "task=[sts,bucc]"),
        ("checkpoint=a/step=1", "checkpoint='a/step=1'"),
        ("data.path=de/en-{language}.tsv", "data.path='de/en-{language}.tsv'"),
        ("data.path=träume/日本.tsv", "data.path='träume/日本.tsv'"),
        ("data.path=it's", r"data.path='it\'s'"),
        ("data.path='already quoted=1'", "data.path='already quoted=1'"),
        ("--cfg", "--cfg"),
        ("~task.mse", "~task.mse"),
    ],
)
def test_values_hydra_cannot_read_are_quoted(argument: str, expected: str) -> None:
    assert quote_if_needed(argument) == expected


def test_quoted_values_arrive_as_typed() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for value in ("a/step=1", "en-{language}.tsv", "träume b/c.tsv", r"back\slash=x", "it's=1", "日本/語.tsv"):
        override = OverridesParser.create().parse_override(quote_if_needed(f"data.path={value}"))
        assert override.value() == value


def test_experiment_needs_no_plus() -> None:
    assert rewrite_experiment(["experiment=a", "+experiment=b", "x=1"]) == ["+experiment=a", "+experiment=b", "x=1"]


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "words"),
    [
        ("train", ["optim.lr=-1"], 2, "error[E204]: optim.lr: must be > 0"),
        ("train", ["experiment=xlmr_en_dr"], 2, "error[E202]: no experiment 'xlmr_en_dr'. Close: xlmr_en_de"),
        ("evaluate", ["checkpoint=x", "task=[]"], 2, "error[E205]: task: is required"),
    ],
)
def test_configuration_errors_exit_with_2(mlkd: Call, kind: str, arguments: list[str], code: int, words: str) -> None:
    found, out, err = mlkd(kind, *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("data.path=absent/en-{language}.tsv", 3, "error[E301]"),
        ("task.tatoeba_file.path=absent/{language}.tsv", 3, "error[E301]"),
        ("teacher.model=./absent", 4, "error[E401]: teacher: no such folder './absent'"),
        ("student.hidden_size=32", 2, "error[E210]: teacher dim 16 != student dim 32"),
        ("teacher.model=package:no_such_package", 5, "error[E502]"),
        pytest.param("hardware=gpu", 5, "error[E501]", marks=pytest.mark.skipif(cuda.is_available(), reason="CUDA")),
    ],
)  # fmt: skip
def test_what_a_run_lacks_is_told_before_it_starts(
    *, mlkd: Call, toy: Any, tmp_path: Path, override: str, code: int, words: str
) -> None:
    found, _, err = mlkd("train", *toy.command(tmp_path / "out"), override)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err
    assert not list((tmp_path / "out").rglob("config.yaml"))


def test_all_that_is_missing_is_told_at_once(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    bad = ["teacher.model=./absent", "data.path=no/{language}.tsv", "task.tatoeba_file.path=no/{language}.tsv"]
    _, _, err = mlkd("train", *toy.command(tmp_path), *bad)
    assert "'./absent'" in err
    assert err.count("error[E301]") >= 2


def test_version(mlkd: Call) -> None:
    code, out, _ = mlkd("train", "--version")
    assert code == 0
    assert out.splitlines()[0] == f"mlkd {__version__}"
    assert "\ntorch " in out
    assert "\nhydra-core " in out


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_help_lists_every_option(kind: str) -> None:
    text = help_text(kind)
    for group in GROUPS if kind == "train" else ("task", "hardware"):
        for path in (CONFIG_DIR / group).glob("*.yaml"):
            assert path.stem in text
            if group == "experiment":
                assert first_comment(path) in text
                assert not first_comment(path).startswith("@package")


@pytest.mark.parametrize(
    ("topics", "told"),
    [
        (["optim"], ["reimers_gurevych_2020", "optim.lr=0.0005   (float)", "peak learning rate"]),
        (["optim.lr"], ["optim.lr=0.0005", "peak learning rate"]),
        (["student=pretrained"], ["student.model=(required)", "student.keep_layers=null   (list[int] | null)"]),
        (["loss/ranking=info_nce"], ["loss.ranking.scale=", "Among which vectors", "teacher: the batch's teacher"]),
        (["task=bucc_file"], ["task.bucc_file.path=(required)", "ratio"]),
        (["+experiment=xlmr_en_de"], ["override /teacher: sbert_nli_stsb"]),
        (["hardware.device"], ["auto | cpu | cuda"]),
        (["seed", "resume"], ["of fresh weights", "resume=true   (bool)"]),
        (["--config-dir", "my/configs", "-m", "optim.lr=3"], ["optim.lr=0.0005"]),
    ],
)
def test_help_of_a_group_an_option_and_a_key(
    capsys: pytest.CaptureFixture[str], topics: list[str], told: list[str]
) -> None:
    assert run("train", ["--help", *topics]) == 0
    out = capsys.readouterr().out
    assert [words for words in told if words not in out] == []


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("optim.lrr", "Did you mean 'optim.lr'?"),
        ("student=thin_dep", "Did you mean 'thin_deep'?"),
        ("search.trials", "hpo.trials"),
        ("nothing=1", "no group or key 'nothing'"),
    ],
)
def test_help_of_what_does_not_exist(capsys: pytest.CaptureFixture[str], topic: str, told: str) -> None:
    assert run("train", ["--help", topic]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("train", ["student=pretrained", "data=tsv", "loss=lealla"]),
        ("train", ["student=thin_deep", "data=hub", "loss=info_nce_teacher_hard"]),
        ("train", ["student=teacher_layers", "data=moses", "loss=triplet"]),
        (
            "evaluate",
            ["task=[bucc,sts_file,xnli,xsim,retrieval_file,mixed_pool,efficiency,agreement,mse]", "teacher=labse"],
        ),
        ("mine", []),
    ],
)
def test_every_key_has_a_type_and_words(kind: str, overrides: list[str]) -> None:
    """Help speaks with the words of the schemas' docstrings: a field that was forgotten there is found here."""
    entries = documented_keys(kind, overrides)
    assert len(entries) > 20
    assert [key for key, (_, type_name, words) in entries.items() if not type_name or not words] == []


def test_help_and_version_import_nothing_heavy() -> None:
    program = """
import sys
from mlkd.cli.main import run
assert run("train", ["--help"]) == run("evaluate", ["-h"]) == run("train", ["--version"]) == 0
heavy = {"torch", "numpy", "hydra", "omegaconf", "transformers", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mlkd-train +experiment=xlmr_en_de" in done.stdout


@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--cfg", "job", "--resolve"), ("--info", "defaults")])
def test_showing_creates_no_folder(
    mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*toy.command(tmp_path / "out"), "optim.lr=0.125", *flags]
    code, out, _ = mlkd("train", *arguments)
    assert code == 0
    assert flags[0] != "--cfg" or "lr: 0.125" in out
    assert list(tmp_path.iterdir()) == []


def test_help_of_hydra_creates_no_folder(mlkd: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        mlkd("train", "--hydra-help")
    assert list(tmp_path.iterdir()) == []


def test_sweep_of_two_seeds(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    code, _, err = mlkd("train", "-m", *toy.command(tmp_path, "optim.max_steps=2"), "seed=1,2")
    assert code == 0, err
    (sweep,) = (tmp_path / "multirun/toy").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == ["0", "1"]
    metrics = []
    for seed, job in enumerate(jobs, start=1):
        assert json.loads((job / "status.json").read_text())["state"] == "finished"
        assert f"seed: {seed}\n" in (job / "config.yaml").read_text()
        assert f"seed={seed}" in (job / "overrides.yaml").read_text()
        metrics.append((job / "metrics.jsonl").read_text())
    assert metrics[0] != metrics[1]


def test_failing_job_does_not_end_a_sweep(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    arguments = toy.command(tmp_path, "optim.max_steps=2")
    code, _, err = mlkd("train", "-m", *arguments, "data.languages=[de,es],[de,fr],[es,de]")
    assert code == 1
    assert "en-fr.tsv" in err
    assert "error[E101]: 1 of 3 jobs failed: 1" in err
    (sweep,) = (tmp_path / "multirun/toy").iterdir()
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in sweep.glob("*/status.json")}
    assert states == {"0": "finished", "1": "failed", "2": "finished"}
    finished = [name for name, state in states.items() if state == "finished"]
    assert sorted(finished) == ["0", "2"]
    assert all((sweep / name / "report.html").is_file() for name in finished)


@pytest.mark.parametrize("bad", ["optm.lr=1,2", "student=thin_dep,thin_deep", "optim.lr=fast,1"])
def test_sweep_over_what_does_not_exist(mlkd: Call, toy: Any, tmp_path: Path, bad: str) -> None:
    code, _, err = mlkd("train", "-m", *toy.command(tmp_path), bad)
    assert code == 2
    assert err.count("error[") == 1
    assert "error[E20" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_any_path_will_do(mlkd: Call, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    root = tmp_path / "lä b=c {1}" / "日本"
    shutil.copytree(toy.root / "train", root / "train")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Pacific/Apia")
    overrides = [f"output_dir={root}/out", f"cache_dir={root}/cache", "optim.max_steps=2"]
    path = f"data.path={str(root).replace('{1}', '{{1}}')}/train/en-{{language}}.tsv"
    code, out, err = mlkd("train", *toy.overrides, *overrides, path)
    assert code == 0, err
    (run,) = (root / "out/toy").iterdir()
    assert (run / "student/model.safetensors").is_file()
    code, out, err = mlkd(
        "evaluate", f"checkpoint={run}", "hardware=cpu", "task=[tatoeba_file]", "task.tatoeba_file.languages=[de]",
        f"task.tatoeba_file.path={toy.root}/dev/en-{{language}}.tsv",
    )  # fmt: skip
    assert code == 0, err
    assert "tatoeba_file accuracy" in out


def test_unwritable_output_is_told_before_models_open(mlkd: Call, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = mlkd("train", *toy.command(tmp_path / "file"))
    assert code == 5
    assert "error[E510]" in err


@pytest.mark.skipif(os.name != "posix", reason="console scripts of the environment are looked for beside python")
def test_console_scripts_are_installed() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mlkd-eval")), "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mlkd ")
